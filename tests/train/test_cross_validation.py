"""Cross-validation: what the folds are, that decays are paired, and which one is chosen."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwd.config import TrainConfig
from qwd.errors import DivergedError, InputError
from qwd.train import cross_validation
from qwd.train.cross_validation import Arm, Cell, choose, cross_validate, stratified
from qwd.train.data import ArraySplit, load
from qwd.train.session import Session

CONFIG = TrainConfig(epochs=1, batch_size=64, threads=1, model="mlp")


def arm(wd: float, accuracies: list[float], losses: list[float] | None = None) -> Arm:
    losses = losses or [1 - a for a in accuracies]
    pairs = zip(accuracies, losses, strict=True)
    return Arm(wd, None, tuple(Cell(wd, i, i - 1, a, b) for i, (a, b) in enumerate(pairs, 1)))


def diverged(wd: float, accuracies: list[float]) -> Arm:
    whole = arm(wd, accuracies)
    return replace(whole, cells=(*whole.cells[:-1], Cell(wd, len(accuracies), 0, None, None)))


@given(
    labels=st.lists(st.integers(0, 4), min_size=10, max_size=200),
    folds=st.integers(2, 10),
)
def test_folds_partition_the_data_in_the_classes_proportions(labels, folds) -> None:
    array = np.array(labels)
    sizes = np.bincount(array)
    if sizes.max() < folds:
        with pytest.raises(InputError, match=f"--folds {folds}: the largest class has"):
            stratified(array, folds)
        return
    parts, notes = stratified(array, folds)
    assert len(parts) == folds
    assert np.array_equal(
        np.sort(np.concatenate([held for _, held in parts])), np.arange(len(array))
    )
    for kept, held in parts:
        assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(array)))
        counts = np.bincount(array[held], minlength=len(sizes))
        assert (np.abs(counts - sizes / folds) < 1).all()
    assert bool(notes) == bool(((sizes > 0) & (sizes < folds)).any())


def test_folds_do_not_depend_on_anything_but_labels_and_count() -> None:
    labels = np.arange(100) % 3
    np.random.seed(1)  # noqa: NPY002
    first = stratified(labels, 5)[0]
    np.random.seed(2)  # noqa: NPY002
    again = stratified(labels, 5)[0]
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a[1], b[1])


def test_the_best_is_the_highest_mean_and_the_choice_the_largest_hardly_worse() -> None:
    """The best mean is 0.90 with deviation 0.02 over 4 folds: an error of 0.01."""
    best = arm(1e-4, [0.88, 0.90, 0.92, 0.90])
    std = math.sqrt((0.02**2 + 0.02**2) / 3)
    assert best.accuracy is not None
    assert best.accuracy.mean == pytest.approx(0.90)
    assert best.accuracy.std == pytest.approx(std)
    assert best.accuracy.error == pytest.approx(std / 2)
    within, beyond = 0.90 - 0.99 * std / 2, 0.90 - 1.01 * std / 2
    arms = [arm(0.0, [0.5] * 4), best, arm(1e-3, [within] * 4), arm(1e-2, [beyond] * 4)]
    assert [a.wd for a in choose(arms, "accuracy")] == [1e-4, 1e-3]
    assert [a.wd for a in choose(arms[::-1], "accuracy")] == [1e-4, 1e-3]
    assert [a.wd for a in choose(arms[:2], "accuracy")] == [1e-4, 1e-4]


def test_equal_accuracies_are_told_apart_by_the_loss() -> None:
    arms = [arm(0.0, [0.9, 0.8], [0.3, 0.3]), arm(1e-3, [0.8, 0.9], [0.2, 0.2])]
    assert choose(arms, "accuracy")[0].wd == 1e-3
    assert choose(arms[::-1], "accuracy")[0].wd == 1e-3


def test_the_loss_decides_where_it_is_asked_to() -> None:
    arms = [
        arm(1e-5, [0.90, 0.90, 0.90], [0.30, 0.31, 0.29]),
        arm(1e-4, [0.80, 0.80, 0.80], [0.20, 0.22, 0.18]),
        arm(1e-3, [0.70, 0.70, 0.70], [0.21, 0.21, 0.21]),
        arm(1e-2, [0.95, 0.95, 0.95], [0.22, 0.22, 0.22]),
    ]
    assert [a.wd for a in choose(arms, "loss")] == [1e-4, 1e-3]
    assert [a.wd for a in choose(arms, "accuracy")] == [1e-2, 1e-2]


def test_a_decay_that_diverges_once_is_never_chosen() -> None:
    arms = [arm(0.0, [0.5, 0.6]), diverged(1.0, [0.99, 0.99])]
    assert [a.wd for a in choose(arms, "accuracy")] == [0.0, 0.0]
    assert (arms[1].accuracy, arms[1].loss, arms[1].diverged) == (None, None, 1)
    with pytest.raises(DivergedError, match="a training diverged under every decay"):
        choose([diverged(1.0, [0.9, 0.9])], "accuracy")


def test_decays_are_paired_and_only_training_images_are_read(monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise AssertionError("cross-validation read a split that is not for it")

    refusing = type("Refusing", (), {"batches": refuse, "__len__": refuse})()
    data = replace(load("digits"), test=refusing, validation=refusing)
    monkeypatch.setattr(cross_validation, "data_for", lambda config: data)
    made = []

    class Recorded(Session):
        def __init__(self, config, data, device):
            super().__init__(config, data, device)
            weights = torch.cat([p.detach().flatten() for p in self.model.parameters()])
            parts = data.train, data.validation
            rows = [part.rows for part in parts if isinstance(part, ArraySplit)]
            made.append((config, *rows, weights))

    monkeypatch.setattr(cross_validation, "Session", Recorded)
    heard = []
    found = cross_validate(replace(CONFIG, seed=4), [0.0, 0.1], 3, on_cell=heard.append)
    assert [(c.wd, c.fold, c.seed) for c in heard] == [
        *((0.0, 1, 4), (0.0, 2, 5), (0.0, 3, 6)),
        *((0.1, 1, 4), (0.1, 2, 5), (0.1, 3, 6)),
    ]
    for (small, *parts), (large, *same) in zip(made[:3], made[3:], strict=True):
        assert (small.wd, large.wd) == (0.0, 0.1)
        assert replace(small, wd=0.1) == large
        assert all(torch.equal(a, b) for a, b in zip(parts, same, strict=True))
    assert tuple(cell for a in found.arms for cell in a.cells) == tuple(heard)
    assert found.arms[0].dose == 0.0
    assert found.arms[1].dose > 0.1  # type: ignore[operator]
    other = cross_validate(replace(CONFIG, seed=4), [0.1], 3)
    assert other.arms[0] == found.arms[1]


def test_divergence_is_recorded_and_figures_are_written() -> None:
    config = replace(CONFIG, form="decoupled", lr=0.1)
    found = cross_validate(config, [1e-4, 1e6], 2, metric="loss")
    assert [a.diverged for a in found.arms] == [0, 2]
    assert (found.best.wd, found.chosen.wd, found.at_the_end) == (1e-4, 1e-4, False)
    assert replace(found, chosen=found.arms[1]).at_the_end
    content = json.loads(found.to_json())
    assert content["arms"][1]["accuracy"] is None
    assert content["arms"][0]["loss"]["mean"] == found.arms[0].loss.mean  # type: ignore[union-attr]
    assert (content["chosen"], content["metric"], content["folds"]) == (1e-4, "loss", 2)
    rows = list(csv.DictReader(found.to_csv().splitlines()))
    assert [row["fold"] for row in rows] == ["1", "2", "1", "2"]
    assert (rows[0]["wd"], rows[2]["accuracy"]) == ("0.0001", "")


def test_early_stopping_is_left_out_and_said() -> None:
    found = cross_validate(replace(CONFIG, early_stop=1), [0.0], 2)
    assert any("early stopping is left out" in note for note in found.notes)
    assert found.config.early_stop is None


def test_small_classes_make_a_note_and_no_warning() -> None:
    parts, notes = stratified(np.array([0] * 20 + [1] * 2), 5)
    assert sum(1 in np.array([0] * 20 + [1] * 2)[held] for _, held in parts) == 2
    assert notes == [
        "1 classes have fewer training images than the 5 folds, and are missing from some"
    ]


def test_a_step_that_cannot_be_compiled_is_said_once(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    (note,) = cross_validate(replace(CONFIG, compile=True), [1e-4, 1e-3], folds=2).notes
    assert "no C++ compiler" in note
