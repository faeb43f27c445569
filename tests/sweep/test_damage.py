"""What goes wrong in a sweep: cells that are damaged, diverge, fail, or are in other hands."""

import shutil
from pathlib import Path

import pytest

from qwd.errors import DivergedError, StorageError, UsageError
from qwd.files import sole_user
from qwd.report.load import load_report
from qwd.sweep.layout import claim_folder
from qwd.sweep.reading import read_design
from qwd.sweep.session import sweep
from tests.sweep.small import CELLS, Here, asked, resumed, same, weights

DAMAGES = {
    "a report that is cut off": ("report.json", lambda c: c[:-99], "cannot read"),
    "a report of nothing": ("report.json", lambda c: b"{}", "cannot read"),
    "weights that are cut off": ("model.safetensors", lambda c: c[:-99], "cannot read"),
    "weights that are none": ("model.safetensors", lambda c: b"abc", "cannot read"),
    "weights with a bit turned": (
        "model.safetensors",
        lambda c: c[:-9] + bytes([c[-9] ^ 1]) + c[-8:],
        "does not match its checksum",
    ),
    "settings that are cut off": ("config.yaml", lambda c: b"wd: [", ""),
    "metrics that are none": ("metrics.csv", lambda c: b"", ""),
    "a checkpoint that is cut off": ("checkpoint.pt", lambda c: c[:99], ""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_read_is_named_and_computed_again(
    damage: str, copied: Path, finished: Path, here: Here
) -> None:
    name, change, message = DAMAGES[damage]
    folder = copied / "cells" / "wd0.01-s0"
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    if not message:  # files that nobody reads of a cell with a report
        (folder / "report.json").unlink()
        if name == "checkpoint.pt":
            (folder / "model.safetensors").unlink()
    done, heard = resumed(copied)
    assert here.computed == ["wd0.01-s0"]
    assert any("wd0.01-s0" in note and message in note for note in heard.notes)
    assert list(done.models) == CELLS
    assert same(weights(folder), weights(finished / "cells" / "wd0.01-s0"))
    done.check()


def test_half_a_cell_is_completed(copied: Path, finished: Path, here: Here) -> None:
    cells = copied / "cells"
    (cells / "wd0-s0" / "report.json").unlink()
    for name in ("report.json", "model.safetensors"):
        (cells / "wd0.01-s0" / name).unlink()
    for path in (cells / "wd0-s1").iterdir():  # killed before anything was written
        path.unlink()
    (cells / "wd0-s1" / ".lock").touch()
    shutil.rmtree(cells / "wd0.01-s1")
    done, _ = resumed(copied)
    assert here.computed == CELLS
    for name in CELLS:
        assert same(weights(cells / name), weights(finished / "cells" / name))
    assert list(done.models) == CELLS


def test_results_of_other_settings_are_never_thrown_away(copied: Path, here: Here) -> None:
    path = copied / "sweep.yaml"
    path.write_text(path.read_text().replace("epochs: 1", "epochs: 2"))
    with pytest.raises(UsageError, match="was trained with --epochs 1, the sweep asks for 2"):
        resumed(copied)
    assert all((copied / "cells" / name / "model.safetensors").is_file() for name in CELLS)


def test_a_cell_that_diverged_is_a_result(tmp_path: Path, here: Here) -> None:
    folder = tmp_path / "s"
    done = sweep(asked(lr="0.1,1e12", wd="0,1e-4", seeds=1), out=folder)
    assert set(done.diverged) == {"wd0-lr1e+12-s0", "wd1e-4-lr1e+12-s0"}
    assert set(done.models) == {"wd0-lr0.1-s0", "wd1e-4-lr0.1-s0"}
    assert "training diverged in epoch 1" in done.diverged["wd0-lr1e+12-s0"]
    done.check()
    # It is reported, and the tests that it was to be part of are counted.
    assert done.report is not None
    assert load_report(folder) == done.report
    found = done.report.verdict
    assert found is not None
    assert (found.family_size, found.diverged) == (6, ("wd0-lr1e+12-s0", "wd1e-4-lr1e+12-s0"))
    assert "in no comparison: wd0-lr1e+12-s0, wd1e-4-lr1e+12-s0" in str(done.report)
    here.computed.clear()
    again, _ = resumed(folder)
    assert (here.computed, again.diverged) == ([], done.diverged)
    (folder / "cells" / "wd0-lr1e+12-s0" / "diverged.json").write_text("{")
    again, heard = resumed(folder)
    assert here.computed == ["wd0-lr1e+12-s0"]
    assert "cannot read" in heard.notes[0]
    assert again.diverged == done.diverged


def test_a_sweep_in_which_every_cell_diverged_is_an_error(tmp_path: Path, here: Here) -> None:
    done = sweep(asked(lr=1e12, seeds=1), out=tmp_path / "s")
    assert done.report is None
    with pytest.raises(DivergedError, match="every cell diverged, the first wd0-s0: training"):
        done.check()


def test_a_cell_that_fails_is_named_and_tried_again(copied: Path, here: Here) -> None:
    shutil.rmtree(copied / "cells" / "wd0-s0")
    broken = copied / "cells" / "wd0-s0"
    broken.write_text("in the way")
    done, _ = resumed(copied)
    assert [outcome.cell for outcome in done.failed] == ["wd0-s0"]
    with pytest.raises(StorageError, match="1 of 4 cells failed, the first wd0-s0: "):
        done.check()
    assert {m.name for m in load_report(copied).models} == set(CELLS[1:])
    broken.unlink()
    done, _ = resumed(copied)
    done.check()
    assert list(done.models) == CELLS


def test_a_cell_in_other_hands_is_left_to_them(copied: Path, here: Here) -> None:
    for name in CELLS[:2]:
        (copied / "cells" / name / "report.json").unlink()
    report = (copied / "report.json").read_bytes()
    with sole_user(claim_folder(copied, CELLS[0])):
        done, heard = resumed(copied)
    assert [outcome.status for outcome in heard.outcomes] == ["busy", "done"]
    assert (done.elsewhere, done.report) == ((CELLS[0],), None)
    assert (copied / "report.json").read_bytes() == report
    done, _ = resumed(copied)
    assert done.elsewhere == ()
    assert done.report is not None


def test_what_another_process_left_behind_is_computed(copied: Path, monkeypatch) -> None:
    """It held the cell when this one came to it, and died before it was done."""
    for name in CELLS[:2]:
        (copied / "cells" / name / "report.json").unlink()

    class Second(Here):
        def run(self, tasks, asked=None):
            if not self.computed:
                with sole_user(claim_folder(copied, CELLS[0])):
                    yield from super().run(tasks)
            else:
                yield from super().run(tasks)

    executor = Second()
    monkeypatch.setattr("qwd.sweep.session.executor_called", lambda n, t: ("here", executor))
    done, heard = resumed(copied)
    assert executor.computed == [*CELLS[:2], CELLS[0]]
    assert [outcome.status for outcome in heard.outcomes] == ["busy", "done", "done"]
    assert (list(done.models), done.elsewhere, done.failed) == (CELLS, (), ())
    assert done.report is not None


def test_the_report_holds_what_another_process_added_meanwhile(copied: Path, monkeypatch) -> None:
    """It has one more seed, and ends before the first cell, which is in the hands of this one."""
    (copied / "cells" / CELLS[0] / "report.json").unlink()

    class Overtaken(Here):
        def run(self, tasks, asked=None):
            executors.append(Here())
            with sole_user(claim_folder(copied, CELLS[0])):
                other, _ = resumed(copied, seeds="0..2")
            assert (other.elsewhere, other.report) == ((CELLS[0],), None)
            yield from super().run(tasks)

    executors: list[Here] = [Overtaken()]
    monkeypatch.setattr("qwd.sweep.session.executor_called", lambda n, t: ("here", executors[-1]))
    done, _ = resumed(copied)
    names = [model.name for model in load_report(copied).models]
    assert names == [*CELLS, "wd0-s2", "wd0.01-s2"]
    assert (done.report is not None, done.design.seeds) == (True, (0, 1, 2))


def test_what_another_process_finished_meanwhile_is_not_trained_twice(
    copied: Path, monkeypatch
) -> None:
    """Both listed the same cells to do; the second finds them done."""
    kept = copied.parent / "kept"
    shutil.move(copied / "cells" / CELLS[0], kept)

    class Late(Here):
        def run(self, tasks, asked=None):
            shutil.move(kept, copied / "cells" / CELLS[0])
            yield from super().run(tasks)

    monkeypatch.setattr("qwd.sweep.session.executor_called", lambda n, t: ("here", Late()))
    monkeypatch.setattr("qwd.sweep.work.train", None)
    done, heard = resumed(copied)
    assert [outcome.status for outcome in heard.outcomes] == ["done"]
    assert list(done.models) == CELLS


def test_a_design_that_changed_meanwhile_is_not_overwritten(
    copied: Path, here: Here, monkeypatch
) -> None:
    from qwd.sweep import trials

    def widened(self, cells) -> None:
        text = (copied / "sweep.yaml").read_text()
        (copied / "sweep.yaml").write_text(text.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))

    monkeypatch.setattr(trials.Trials, "check", widened)
    with pytest.raises(StorageError, match="was changed by another process"):
        resumed(copied, wd="1e-3")
    assert read_design(copied).seeds == (0, 1, 2)
