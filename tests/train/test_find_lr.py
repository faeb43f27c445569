"""The range test: the training's own steps at a rising rate, and what is read from its curve."""

import contextlib
import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qwd import layers
from qwd.config import TrainConfig
from qwd.errors import DivergedError, UsageError
from qwd.train import find_lr, seeding
from qwd.train.data import load
from qwd.train.find_lr import Point, RangeTest, Smoothing, lowest_and_steepest, range_test
from qwd.train.find_lr_plot import plot
from qwd.train.progress import Watcher
from qwd.train.session import Session

CONFIG = TrainConfig(threads=1)
NARROW = {"first": 0.1, "last": 0.1 * (1 + 1e-12), "steps": 60}
"""rates that are one rate, for longer than an epoch of 39 steps"""


@pytest.fixture(scope="module")
def found() -> RangeTest:
    return range_test(CONFIG, steps=120)


def losses(config: TrainConfig, **options) -> list[float]:
    points: list[Point] = []
    with contextlib.suppress(DivergedError):  # rates that lower nothing have losses too
        range_test(config, on_step=points.append, **options)
    return [point.loss for point in points]


def trained(config: TrainConfig, steps: int) -> list[float]:
    """The losses of a training's first steps at a constant rate."""
    steady = replace(config, lr_schedule="constant")
    with seeding.reproducible(torch.device("cpu"), 1):
        session = Session(steady, load("digits"), torch.device("cpu"))
        found: list[float] = []
        step = session.step

        def recorded(images: Tensor, labels: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
            loss, right = step(images, labels, **options)
            found.append(loss.item())
            return loss, right

        session.step = recorded
        for epoch in range(math.ceil(steps / session.steps_per_epoch)):
            session.run_epoch(epoch, Watcher())
    return found[:steps]


def test_it_finds_a_rate_that_trains_digits(found: RangeTest) -> None:
    """Rates from 0.03 to 1 train this network to 98 % and more; 0.003 and 3 do not."""
    assert 0.02 < found.suggestion < 1
    assert 0.005 < found.steepest < found.lowest
    assert found.suggestion == pytest.approx(found.lowest / 10, rel=0.05)


def test_rates_rise_geometrically_to_the_last(found: RangeTest) -> None:
    rates = [point.lr for point in found.points]
    assert rates[0] == 1e-6
    assert np.diff(np.log(rates)) == pytest.approx(math.log(1e7) / 119)
    assert [point.step for point in found.points] == list(range(1, len(rates) + 1))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"wd": 0.1},
        {"form": "decoupled", "wd": 0.1, "augment": "crop"},
        {"optimizer": "adamw", "form": "decoupled", "seed": 3},
        {"bias_lr": 2.0, "base_batch_size": 16},
    ],
)
def test_at_a_constant_rate_it_is_the_training(changes) -> None:
    config = replace(CONFIG, lr=0.1, **changes)
    expected = trained(config, NARROW["steps"])
    assert losses(config, **NARROW) == pytest.approx(expected, rel=1e-3)


def test_the_decay_is_the_trainings_own() -> None:
    assert losses(replace(CONFIG, wd=0.1), **NARROW) != losses(replace(CONFIG, wd=0.0), **NARROW)


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 0.5},
        {"lr_schedule": "step", "warmup": 2},
        {"lr_schedule": "multistep", "lr_step": (0.3, 0.6)},
        {"lr_schedule": "onecycle", "epochs": 1},
        {"lr_schedule": "polynomial", "lr_power": 0.5, "epochs": 1},
        {"wd_schedule": "cosine", "wd_end": 0.5, "wd_until": 0.5},
        {"early_stop": 1},
    ],
)
def test_schedules_and_the_rate_of_the_settings_play_no_part(changes) -> None:
    wide = {"first": 1e-3, "last": 1.0, "steps": 60}
    config = replace(CONFIG, wd=0.01)
    assert losses(replace(config, **changes), **wide) == pytest.approx(
        losses(config, **wide), rel=1e-4
    )


def test_each_rate_is_a_peak_rate_to_the_decay() -> None:
    """AdamC refers to the peak: wd * lr_t^2 / lr_max is wd * lr in a run at a constant lr."""
    config = replace(CONFIG, form="decoupled", wd=0.5, lr_corrected="auto")
    expected = trained(replace(config, lr=0.1), NARROW["steps"])
    assert losses(replace(config, lr=0.001), **NARROW) == pytest.approx(expected, rel=1e-3)


def test_the_same_settings_give_the_same_bytes(found: RangeTest, tmp_path: Path) -> None:
    again = range_test(CONFIG, steps=120)
    assert again.to_csv() == found.to_csv()
    assert again.to_json() == found.to_json()
    assert range_test(replace(CONFIG, seed=1), steps=120).to_csv() != found.to_csv()
    for ending in ("svg", "pdf", "png"):
        for name, test in (("a", found), ("b", again)):
            plot(test, tmp_path / f"{name}.{ending}")
        a, b = (tmp_path / f"{name}.{ending}" for name in ("a", "b"))
        assert a.read_bytes() == b.read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "a.svg").read_text()
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_every_figure_is_written(found: RangeTest) -> None:
    rows = list(csv.DictReader(found.to_csv().splitlines()))
    assert [float(row["loss"]) for row in rows] == [point.loss for point in found.points]
    content = json.loads(found.to_json())
    assert content["suggestion"] == found.suggestion
    assert len(content["points"]) == len(rows)
    assert layers.from_layers({}, {}, content["config"]) == CONFIG


def test_a_plot_of_another_kind_is_refused(found: RangeTest, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in .png, .svg or .pdf"):
        plot(found, tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_names_are_plain_text_in_a_plot(found: RangeTest, tmp_path: Path) -> None:
    plot(replace(found, config=replace(CONFIG, data="imagefolder:a$_$b")), tmp_path / "a.svg")


def test_only_the_training_split_is_read(monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise AssertionError("the range test read a split that is not for it")

    refusing = type("Refusing", (), {"batches": refuse, "__len__": refuse})()
    data = replace(load("digits"), test=refusing, validation=refusing)
    monkeypatch.setattr(find_lr, "data_for", lambda config: data)
    range_test(CONFIG, steps=60)


def scripted(monkeypatch, values) -> None:
    """A training whose losses are these, then the last of them for ever."""
    monkeypatch.setattr(find_lr, "_losses", lambda session, rates: iter(values))


def test_it_stops_where_the_smoothed_loss_is_four_times_its_minimum(monkeypatch) -> None:
    falling = list(np.linspace(2.0, 0.5, 60))
    scripted(monkeypatch, [*falling, *[100.0] * 140])
    found = range_test(CONFIG)
    smoothed = [point.smoothed for point in found.points]
    assert smoothed[-1] > 4 * min(smoothed)
    assert all(s <= 4 * min(smoothed[: i + 1]) for i, s in enumerate(smoothed[:-1]))
    assert len(smoothed) < 70
    assert "exceeds 4 times its minimum" in str(found.stopped)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_it_stops_at_a_loss_that_is_not_finite(monkeypatch, bad) -> None:
    scripted(monkeypatch, [*np.linspace(2.0, 0.5, 60), bad, 0.1])
    found = range_test(CONFIG)
    assert len(found.points) == 60
    assert "the loss is not finite" in str(found.stopped)
    assert "NaN" not in found.to_json()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([math.nan], "the loss is not finite at the first step"),
        ([2.3] * 200, "no rate from 1e-06 to 10 lowered the loss"),
        (list(np.linspace(2.3, 4.0, 200)), "no rate from 1e-06 to 10 lowered the loss"),
        ([2.3, 2.2, math.nan], "no rate from 1e-06 to 1.08e-06 lowered the loss"),
    ],
)
def test_a_loss_that_never_falls_is_said(monkeypatch, values, message) -> None:
    scripted(monkeypatch, values)
    with pytest.raises(DivergedError, match=message):
        range_test(CONFIG)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("steps", [50, 100])
def test_rates_too_low_to_learn_lower_nothing(seed: int, steps: int) -> None:
    with pytest.raises(DivergedError, match="no rate from 1e-09 to 1e-08 lowered the loss"):
        range_test(replace(CONFIG, seed=seed), first=1e-9, last=1e-8, steps=steps)


def test_smoothing_is_a_weighted_mean() -> None:
    noise = np.random.default_rng(0).normal(size=50)
    smoothing = Smoothing()
    for t, loss in enumerate(noise, start=1):
        weights = 0.98 ** np.arange(t)[::-1]
        expected = (weights * noise[:t]).sum() / weights.sum()
        assert smoothing.add(loss) == pytest.approx(expected, rel=1e-9)
    assert Smoothing().add(7.0) == pytest.approx(7.0)


def test_the_steepest_descent_is_where_the_curve_is_steepest() -> None:
    """A logistic fall about 1e-2 in log rate, and a rise that begins at 1."""
    rates = np.geomspace(1e-6, 10, 201)
    x = np.log10(rates)
    curve = 2 / (1 + np.exp(4 * (x + 2))) + np.where(x > 0, 3 * x, 0) + 0.5
    read = lowest_and_steepest(list(rates), list(curve), list(curve))
    assert read is not None
    lowest, steepest = read
    assert steepest == pytest.approx(1e-2, rel=0.05)
    assert lowest == pytest.approx(1.0, rel=0.05)


def test_a_fall_after_the_lowest_loss_does_not_count() -> None:
    curve = [*np.linspace(2, 1, 100), *np.linspace(1.1, 3, 50), *np.linspace(3, 1.5, 50)]
    rates = list(np.geomspace(1e-6, 10, 200))
    read = lowest_and_steepest(rates, curve, curve)
    assert read is not None
    assert read[0] == rates[99]
    assert read[1] <= rates[99]


def test_a_step_that_cannot_be_compiled_is_said(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    test = range_test(replace(CONFIG, compile=True), steps=60)
    (note,) = json.loads(test.to_json())["notes"]
    assert "no C++ compiler" in note
