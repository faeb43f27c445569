"""Float, post-training and quantization-aware accuracy per decay and width."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qwd.report.figures import ModelReport
from qwd.report.intervals import interval
from qwd.report.ptq_qat import quantized_rows
from tests.report.builders import model, scheme


def run(seed: int, accuracies: dict[int, float], **config: Any) -> ModelReport:
    """A run with a static result per width."""
    qat = bool(config.get("qat"))
    results = {
        f"affine-tensor-w{bits}-a8{'-qat' if qat else ''}": replace(
            scheme(),
            scheme="affine",
            granularity="tensor",
            weight_bits=bits,
            activation_bits=8,
            accuracy=accuracy,
            qat=qat,
        )
        for bits, accuracy in accuracies.items()
    }
    made = model()
    settings = {"model": "m", "data": "d", "wd": 1e-4, "qat": False, "from": None, **config}
    return replace(made, name=f"{seed}-{qat}", seed=seed, config=settings, schemes=results)


def test_the_table_has_a_row_per_decay_and_width() -> None:
    models = [
        *(run(seed, {8: 0.9, 4: 0.5 + seed / 100}) for seed in (0, 1, 2)),
        *(run(seed, {4: 0.8 + seed / 50}, qat=True) for seed in (0, 1, 2)),
        run(0, {8: 0.7, 4: 0.6}, wd=1e-5),
        # Tuned in float: neither post-training nor aware.
        run(0, {8: 0.1, 4: 0.1}, **{"from": "runs/x"}),
    ]
    rows = quantized_rows(models)
    assert [(row.wd, row.bits) for row in rows] == [(1e-5, 8), (1e-5, 4), (1e-4, 8), (1e-4, 4)]
    eight, four = rows[2:]
    assert eight.qat is None
    assert eight.gain_pp is None
    assert eight.post_training is not None
    assert eight.post_training.mean == pytest.approx(0.9)
    assert four.post_training is not None
    assert four.qat is not None
    assert four.post_training.mean == pytest.approx(0.51)
    assert four.qat.mean == pytest.approx(0.82)
    assert four.gain_pp is not None
    assert four.gain_pp.mean == pytest.approx(31)
    assert four.gain_pp.pairs == 3
    assert four.gain_pp.low is not None
    assert four.gain_pp.low < 31 < four.gain_pp.high  # type: ignore[operator]


def test_pairs_are_of_one_seed() -> None:
    rows = quantized_rows([run(0, {4: 0.5}), run(1, {4: 0.6}, qat=True)])
    assert rows[0].gain_pp is None
    one = quantized_rows([run(1, {4: 0.5}), run(1, {4: 0.6}, qat=True)])[0].gain_pp
    assert one is not None
    assert (one.low, one.high, one.pairs) == (None, None, 1)


def test_runs_of_other_settings_are_no_pair() -> None:
    after, aware = run(0, {4: 0.5}, optimizer="adamw"), run(0, {4: 0.6}, optimizer="sgd", qat=True)
    rows = quantized_rows([after, aware])
    assert [row.gain_pp for row in rows] == [None, None]
    assert [row.setting for row in rows] == ["m on d, optimizer adamw", "m on d, optimizer sgd"]
    longer = quantized_rows([run(0, {4: 0.5}, epochs=9), run(0, {4: 0.6}, epochs=3, qat=True)])
    assert [row.gain_pp for row in longer] == [None, None]


def test_a_run_that_starts_from_another_is_compared_with_that() -> None:
    short = replace(run(0, {4: 0.5}, epochs=3), path="runs/short")
    long = replace(run(0, {4: 0.7}, epochs=9), path="runs/long")
    aware = run(0, {4: 0.8}, epochs=1, qat=True, **{"from": "runs/../runs/long"})
    rows = {row.setting: row for row in quantized_rows([short, long, aware])}
    gain = rows["m on d, epochs 9"].gain_pp
    assert gain is not None
    assert gain.mean == pytest.approx(10)
    assert rows["m on d, epochs 3"].gain_pp is None
    # Its folder is not known by that name: the run of its seed and settings, if there is one.
    moved = run(0, {4: 0.8}, epochs=1, qat=True, **{"from": "elsewhere"})
    alone = quantized_rows([long, moved])[0].gain_pp
    assert alone is not None
    assert alone.mean == pytest.approx(10)
    assert all(row.gain_pp is None for row in quantized_rows([short, long, moved]))


def test_one_width_in_float_alone_is_no_table() -> None:
    assert quantized_rows([run(0, {8: 0.9}), run(1, {8: 0.8})]) == ()
    assert len(quantized_rows([run(0, {8: 0.9, 4: 0.2})])) == 2


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=12))
def test_the_interval_is_scipys(changes: list[float]) -> None:
    found = interval(changes)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    if np.std(changes) < 1e-9:
        assert found.low == pytest.approx(found.high)
        return
    expected = stats.ttest_1samp(changes, 0).confidence_interval(0.95)
    assert found.low == pytest.approx(expected.low, abs=1e-9)
    assert found.high == pytest.approx(expected.high, abs=1e-9)
