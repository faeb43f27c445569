"""The benchmark of weight figures, on little data."""

import pytest
import torch

from benchmarks import weight_figures
from benchmarks.weight_figures import CASES, run


@pytest.mark.parametrize("case", CASES)
def test_every_case_runs(case):
    said = run(case, megabytes=0.2, count=3, rounds=2)
    if case == "resident" and not torch.cuda.is_available():
        assert said == "resident   skipped: there is no GPU"
        return
    line = said.split()
    assert line[0] == case
    assert all(float(speed) >= 0 for speed in line[1:3])
    assert float(line[3].removesuffix("x")) > 0


def test_calls_on_a_gpu_are_timed_as_one(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(weight_figures.time, "perf_counter", lambda: now[0])

    def work():
        calls.append(now[0])
        now[0] += 2.0

    assert weight_figures.timed_on_gpu(work) == 2.0
    assert len(calls) == 3 + weight_figures.CALLS


def test_the_script_computes_what_qwd_does():
    (w,) = weight_figures.small_tensors(1)
    found, figures = weight_figures.script(w), weight_figures.weight_figures(w)
    assert found["kurtosis"] == pytest.approx(figures.kurtosis, rel=1e-4)
    # The script has 0 for a code of its own and bins without rounding.
    assert found["sqnr"] == pytest.approx(figures.sqnr_db, abs=0.5)
    assert found["entropy"] == pytest.approx((figures.entropy_bits or 0) * 0.693, rel=0.02)
