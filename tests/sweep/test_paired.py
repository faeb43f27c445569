"""Cells of one seed differ in what they are asked to differ in, and in nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qwd.sweep import Cell, begin, cells_of
from qwd.sweep.session import sweep
from qwd.train.data import load
from qwd.train.session import Session
from tests.sweep.small import Here, asked, same, weights

PAIRS = {
    "two decays": {"wd": "1e-5,1e-1", "seeds": 1},
    "two forms": {"wd": 1e-3, "form": "l2,decoupled", "seeds": 1},
    "two optimizers": {"wd": 1e-3, "optimizer": "sgd,adamw", "seeds": 1},
}


def beginning(cell: Cell) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Initial weights, and the augmented images and labels of two epochs."""
    session = Session(cell.config, load("digits"), torch.device("cpu"))
    state = {name: tensor.clone() for name, tensor in session.model.state_dict().items()}
    seen = [t for epoch in (0, 1) for batch in session.batches(epoch) for t in batch]
    return state, seen


@pytest.mark.parametrize("settings", PAIRS.values(), ids=PAIRS)
def test_initialization_order_and_augmentation_are_shared(settings) -> None:
    first, second = cells_of(begin(asked(model="small_cnn", augment="crop-flip", **settings)))
    (weights_a, seen_a), (weights_b, seen_b) = beginning(first), beginning(second)
    assert same(weights_a, weights_b)
    assert len(seen_a) == len(seen_b) > 0
    assert all(torch.equal(a, b) for a, b in zip(seen_a, seen_b, strict=True))
    other_weights, other_seen = beginning(
        replace(first, config=replace(first.config, seed=first.config.seed + 1))
    )
    assert not same(weights_a, other_weights)
    assert not all(torch.equal(a, b) for a, b in zip(seen_a, other_seen, strict=True))


def test_trainings_whose_decay_takes_nothing_are_bitwise_the_same(
    tmp_path: Path, here: Here
) -> None:
    """A decay below half a unit in the last place, two forms of no decay, and none: one result."""
    settings = {"form": "l2,decoupled", "wd": "0,1e-30", "augment": "crop-flip", "epochs": 2}
    done = sweep(asked(**settings, seeds=1), out=tmp_path / "s")
    found = [weights(tmp_path / "s" / "cells" / cell.id) for cell in done.cells]
    assert len(found) == 4
    assert all(same(found[0], other) for other in found[1:])


def test_a_decay_that_takes_something_is_seen(tmp_path: Path, here: Here) -> None:
    done = sweep(asked(seeds=1), out=tmp_path / "s")
    first, second = (weights(tmp_path / "s" / "cells" / cell.id) for cell in done.cells)
    assert not same(first, second)
