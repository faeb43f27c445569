"""A sweep from its first cell to its report: resumed, extended, a cell alone."""

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from qwd.config import TrainConfig
from qwd.errors import UsageError
from qwd.layers import from_layers, load_yaml
from qwd.report.comparison import compare_models
from qwd.report.load import load_report
from qwd.report.verdict import certified, verdict
from qwd.sweep.reading import read_design
from qwd.sweep.session import sweep
from qwd.train.session import train
from tests.sweep.small import CELLS, SMALL, Heard, Here, asked, resumed, same, weights


def test_every_cell_is_a_run_folder_with_its_report(finished: Path) -> None:
    assert sorted(path.name for path in (finished / "cells").iterdir()) == sorted(CELLS)
    for name in CELLS:
        report = load_report(finished / "cells" / name)
        (model,) = report.models
        assert model.name == name
        assert list(model.schemes) == ["affine-tensor"]
        assert (finished / "cells" / name / "metrics.csv").is_file()
    assert read_design(finished).axes == {"wd": (0.0, 1e-2)}


def test_the_report_holds_every_cell_the_comparison_and_the_verdict(finished: Path) -> None:
    report = load_report(finished)
    models = [load_report(finished / "cells" / name).models[0] for name in CELLS]
    assert list(report.models) == models
    assert report.comparison == compare_models(models)
    assert report.verdict == certified(
        verdict(models, reference=1e-2), "mlp on digits", "wd 0", [], "ao-static was not reported"
    )
    assert report.comparison is not None
    assert [group.wd for group in report.comparison.groups] == [0.0, 1e-2]


def test_a_folder_is_continued_only_when_asked(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists: continue it with --resume"):
        sweep(SMALL, out=finished)
    with pytest.raises(UsageError, match="is no sweep folder; leave --resume out"):
        sweep(SMALL, out=tmp_path / "absent", resume=True)
    with pytest.raises(UsageError, match="--epochs 9: the sweep in .* has 1"):
        sweep({"epochs": 9}, out=finished, resume=True)
    assert not (tmp_path / "absent").exists()


def test_a_finished_sweep_has_nothing_left_to_do(copied: Path, here: Here) -> None:
    before = (copied / "report.json").read_bytes()
    done, heard = resumed(copied, **SMALL)
    assert (here.computed, heard.notes) == ([], [])
    assert (copied / "report.json").read_bytes() == before
    assert list(done.models) == CELLS
    done.check()


def test_more_decays_and_seeds_train_the_new_cells_alone(copied: Path, here: Here) -> None:
    done, _ = resumed(copied, wd="1e-3", seeds=3)
    new = {"wd1e-3-s0", "wd1e-3-s1", "wd0-s2", "wd0.01-s2", "wd1e-3-s2"}
    assert set(here.computed) == new
    assert len(here.computed) == 5
    assert read_design(copied).axes == {"wd": (0.0, 1e-2, 1e-3)}
    assert {m.name for m in load_report(copied).models} == {*CELLS, *new}
    assert done.design.reference_wd == 1e-3


def test_a_setting_that_begins_to_vary_keeps_what_is_trained(copied: Path, here: Here) -> None:
    resumed(copied, momentum="0.5,0.9", seeds=1)
    assert set(here.computed) == {f"wd{wd}-momentum0.5-s{s}" for wd in (0, 0.01) for s in (0, 1)}
    assert len(load_report(copied).models) == 8


def test_an_interrupted_sweep_goes_on(tmp_path: Path, monkeypatch) -> None:
    class Stopping(Here):
        def run(self, tasks, asked=None):
            yield from super().run(tasks[:2])
            raise KeyboardInterrupt

    monkeypatch.setattr("qwd.sweep.session.executor_called", lambda n, t: ("here", Stopping()))
    with pytest.raises(KeyboardInterrupt):
        sweep(SMALL, out=tmp_path / "s")
    rest = Here()
    monkeypatch.setattr("qwd.sweep.session.executor_called", lambda n, t: ("here", rest))
    done, _ = resumed(tmp_path / "s")
    assert rest.computed == CELLS[2:]
    assert list(done.models) == CELLS


def test_one_cell_alone_gives_the_same_weights(copied: Path, finished: Path, here: Here) -> None:
    cell = copied / "cells" / "wd0.01-s1"
    wanted = weights(cell)
    save_file({name: tensor + 1 for name, tensor in wanted.items()}, cell / "model.safetensors")
    heard = Heard()
    sweep({}, out=copied, resume=True, only=["wd0.01-s1"], watcher=heard)
    assert [outcome.cell for outcome in heard.outcomes] == ["wd0.01-s1"]
    assert same(weights(cell), wanted)
    stored = load_yaml(finished / "cells" / "wd0.01-s1" / "config.yaml")
    run = train(from_layers({}, {}, stored), out=copied.parent / "alone")
    assert same(weights(run.path), wanted)


def test_a_cell_that_is_not_there_is_refused_with_the_nearest(copied: Path) -> None:
    with pytest.raises(UsageError, match="--cell wd0-s9: unknown cell, did you mean 'wd0-s"):
        sweep({}, out=copied, resume=True, only=["wd0-s9"])
    with pytest.raises(UsageError, match="needs --resume"):
        sweep(SMALL, out=copied.parent / "new", only=["wd0-s0"])


def test_contradictions_that_need_the_network_are_said_before_anything_runs(
    tmp_path: Path, here: Here
) -> None:
    with pytest.raises(UsageError, match="cell wd0-torch.optim-LBFGS-s0: --optimizer"):
        sweep(asked(optimizer="sgd,torch.optim:LBFGS"), out=tmp_path / "s")
    assert (here.computed, list(tmp_path.iterdir())) == ([], [])


def test_faint_decays_are_said_before_the_time_is_spent(tmp_path: Path, here: Here) -> None:
    heard = Heard()
    sweep(asked(wd="0,1e-6", seeds=1), out=tmp_path / "s", watcher=heard)
    assert "doses below 0.05: these trainings cannot differ" in heard.notes[0]


def test_a_task_survives_its_trip_as_json(finished: Path) -> None:
    from qwd.sweep.executor import Task
    from qwd.sweep.opening import open_sweep, tasks_of

    opened = open_sweep(asked(no_decay=["fc"], bits="8,4"), finished.parent / "new", False)
    for task in tasks_of(opened, opened.cells, (CELLS[0],)):
        assert Task.of_dict(json.loads(json.dumps(task.to_dict()))) == task
        assert isinstance(task.config, TrainConfig)
