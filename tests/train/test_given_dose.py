"""The dose that a run was given, at the rates that it really had, stored and reported."""

from pathlib import Path
from typing import Any

import pytest

from qwd.config import TrainConfig
from qwd.report.subject import Subjects
from qwd.train.planning import planned_dose
from qwd.train.progress import Watcher
from qwd.train.run import Run
from qwd.train.session import train

IMAGES = 39 * 32


def trained(folder: Path, watcher: Watcher | None = None, **settings: Any) -> Run:
    given: dict[str, Any] = {"threads": 1, "epochs": 3, **settings}
    config = TrainConfig(**given)
    return train(config, out=folder, watcher=watcher, resume=folder.exists())


def test_a_whole_run_was_given_what_was_planned(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    assert run.dose == pytest.approx(planned_dose(run.config, IMAGES), rel=1e-12)
    assert Subjects({}).open(run.path).dose == run.dose
    doses = [row["dose"] for row in run.metrics]
    assert doses == sorted(doses)  # type: ignore[type-var]


def test_a_run_that_ended_early_was_given_the_dose_of_the_weights_that_it_kept(
    tmp_path: Path,
) -> None:
    """39 steps an epoch at 0.1 until the rate falls, momentum 0.9, wd 1e-4."""
    settings = {"epochs": 20, "lr_schedule": "plateau", "lr_patience": 1, "early_stop": 1}
    run = trained(tmp_path / "run", **settings)
    best = int(run.metrics[-1]["best_epoch"] or 0)
    assert len(run.metrics) < 20
    expected = sum(39 * row["lr"] * 10 * 1e-4 for row in run.metrics[:best])  # type: ignore[operator]
    assert run.dose == pytest.approx(expected)
    assert Subjects({}).open(run.path).dose == run.dose


class Interrupting(Watcher):
    def epoch_ended(self, row: dict[str, float | None]) -> None:
        raise KeyboardInterrupt


def test_a_resumed_run_counts_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", Interrupting())
    resumed, whole = trained(tmp_path / "cut"), trained(tmp_path / "whole")
    assert [row["dose"] for row in resumed.metrics] == [row["dose"] for row in whole.metrics]


def test_a_form_without_a_dose_has_none(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", optimizer="adam", epochs=1)
    assert run.dose is None
    assert Subjects({}).open(run.path).dose is None
