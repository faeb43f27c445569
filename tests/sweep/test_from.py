"""A sweep that starts from another one."""

from pathlib import Path

import pytest

from qwd.errors import InputError, UsageError
from qwd.sweep.session import sweep
from tests.sweep.small import CELLS, Here, same, weights


def test_a_sweep_from_a_sweep_starts_each_cell_from_its_own(
    finished: Path, tmp_path: Path, here: Here
) -> None:
    out = tmp_path / "tuned"
    done = sweep({"from": str(finished), "epochs": 1, "scheme": "affine-tensor"}, out=out)
    assert [cell.id for cell in done.cells] == CELLS
    for cell in done.cells:
        assert cell.config.from_ == str(finished / "cells" / cell.id)
        assert (cell.config.model, cell.config.lr) == ("mlp", 0.01)
    some = sweep(
        {"from": str(finished), "wd": 1e-2, "seeds": "1..1", "epochs": 1, "lr": "0.01,0.02"},
        out=tmp_path / "some",
    )
    assert [cell.id for cell in some.cells] == ["wd0.01-lr0.01-s1", "wd0.01-lr0.02-s1"]
    same_start = weights(out / "cells" / "wd0.01-s1")
    assert same(same_start, weights(tmp_path / "some" / "cells" / "wd0.01-lr0.01-s1"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wd": 3}, "--wd 3: the sweep in .* has 0,0.01"),
        ({"seeds": "0..4"}, "--seeds 2,3,4: the sweep in .* has 0,1"),
        ({"placebo": True}, "--placebo: the sweep in"),
        ({"model": "small_cnn"}, "cell wd0-s0: --model small_cnn: the run in"),
    ],
)
def test_what_a_sweep_cannot_start_from_is_said(
    settings, message, finished: Path, tmp_path: Path, here: Here
) -> None:
    with pytest.raises(UsageError, match=message):
        sweep({"from": str(finished), **settings}, out=tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_start_that_is_unfinished_is_said_before_anything_runs(copied: Path, here: Here) -> None:
    (copied / "cells" / "wd0-s1" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cell wd0-s1: --from .* is unfinished"):
        sweep({"from": str(copied)}, out=copied.parent / "never")
    assert here.computed == []
