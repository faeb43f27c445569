"""The benchmark of weight figures, on little data."""

import pytest

from benchmarks import weight_figures
from benchmarks.weight_figures import CASES, run


@pytest.mark.parametrize("case", CASES)
def test_every_case_runs(case):
    line = run(case, megabytes=0.2, count=3, rounds=2).split()
    assert line[0] == case
    assert all(float(speed) >= 0 for speed in line[1:3])
    assert float(line[3].removesuffix("x")) > 0


def test_the_script_computes_what_qwd_does():
    (w,) = weight_figures.small_tensors(1)
    found, figures = weight_figures.script(w), weight_figures.weight_figures(w)
    assert found["kurtosis"] == pytest.approx(figures.kurtosis, rel=1e-4)
    # The script has 0 for a code of its own and bins without rounding.
    assert found["sqnr"] == pytest.approx(figures.sqnr_db, abs=0.5)
    assert found["entropy"] == pytest.approx((figures.entropy_bits or 0) * 0.693, rel=0.02)
