"""A search from its first trial to its best: what it measures, where it stops, how it goes on."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from qwd_cli.sweep_search import run_search

from qwd.errors import DivergedError, UsageError, VerificationError
from qwd.quantize.backend import quantize
from qwd.quantize.folding import deploy
from qwd.quantize.schemes import parse_scheme
from qwd.report.build import calibration_batches
from qwd.report.load import load_report
from qwd.sweep import search as module
from qwd.sweep import search_objective
from qwd.train.data import load
from qwd.train.evaluation import accuracy, logits
from qwd.train.run import read_run
from tests.sweep.searching import SMALL, here, resumed, searched
from tests.sweep.small import same, weights


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "side_by_side", lambda *args: (event for event in here(*args)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of three trials, never written to."""
    folder = tmp_path_factory.mktemp("search") / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "side_by_side", lambda *args: (event for event in here(*args)))
        searched(folder, 3)
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "s"))


def int8_on_validation(run: Path) -> float:
    """The int8 accuracy on the validation split, from the stored weights."""
    model, data = read_run(run).model(), load("digits")
    calibration = calibration_batches(data, 512)
    network = quantize(deploy(model).module, parse_scheme("ao-static"), calibration)
    outputs = logits(network, data.validation, torch.device("cpu"))
    return accuracy(outputs, data.validation.labels)


def test_the_best_is_best_in_int8_on_the_validation_split(made: Path) -> None:
    done, heard = resumed(made, 3)
    assert (heard.left, heard.trials) == (0, [])
    figures = {trial.id: trial.int8_accuracy for trial in done.trials}
    assert figures == {f"t{i}": int8_on_validation(made / "cells" / f"t{i}") for i in range(3)}
    assert done.best is not None
    assert done.best.int8_accuracy == max(figures.values())  # type: ignore[type-var]


def test_the_test_split_is_read_for_the_best_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits: list[int] = []

    def counted(network: Any, split: Any, device: torch.device) -> torch.Tensor:
        splits.append(len(split))
        return logits(network, split, device)

    monkeypatch.setattr(search_objective, "logits", counted)
    data = load("digits")
    assert len(data.validation) != len(data.test)
    done, _ = searched(tmp_path / "s", 2)
    assert splits == [len(data.validation)] * 4
    assert done.best is not None
    reported = [path.parent.name for path in (tmp_path / "s" / "cells").glob("*/report.json")]
    assert reported == [done.best.id]
    (model,) = load_report(tmp_path / "s").models
    assert (model.name, model.data and model.data.n) == (done.best.id, len(data.test))


def test_optuna_and_its_dashboard_read_the_study(made: Path) -> None:
    storage = f"sqlite:///{made}/search.db"
    study = optuna.load_study(study_name=made.name, storage=storage)
    done, _ = resumed(made, 3)
    assert done.best is not None
    assert (study.best_trial.number, study.best_value) == (
        done.best.number,
        done.best.int8_accuracy,
    )
    assert study.best_params["lr"] == done.best.values["lr"]
    assert 1 - study.best_params["1 - momentum"] == done.best.values["momentum"]
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)


def test_more_trials_are_added_and_none_is_trained_twice(copied: Path, made: Path) -> None:
    done, heard = resumed(copied, 4)
    assert [trial.id for trial in heard.trials] == ["t3"]
    before, _ = resumed(made, 3)
    assert done.trials[:3] == before.trials


def test_half_a_trial_is_completed_as_if_nothing_had_been(copied: Path, made: Path) -> None:
    """Killed after the draw and in the middle of the training."""
    with sqlite3.connect(copied / "search.db") as file:
        file.execute("update trials set state = 'RUNNING', datetime_complete = null")
        file.execute("delete from trial_values")
        file.execute("delete from trial_user_attributes where key = 'float_accuracy'")
    (copied / "cells" / "t0" / "model.safetensors").unlink()
    (copied / "cells" / "t1" / "config.yaml").write_text("wd: [")
    shutil.rmtree(copied / "cells" / "t2")
    (copied / "report.json").unlink()
    done, heard = resumed(copied, 3)
    before, _ = resumed(made, 3)
    assert [trial.id for trial in heard.trials] == ["t0", "t1", "t2"]
    assert done.trials == before.trials
    for name in ("t0", "t1", "t2"):
        assert same(weights(copied / "cells" / name), weights(made / "cells" / name))
    assert done.report is not None
    assert before.report is not None
    assert done.report.models[0].summary == before.report.models[0].summary


def test_what_diverges_is_a_result_and_the_worst(tmp_path: Path) -> None:
    done, _ = searched(tmp_path / "s", 2, lr=1e13)
    assert [trial.int8_accuracy for trial in done.trials] == [None, None]
    assert (done.best, done.report, done.command) == (None, None, None)
    assert (tmp_path / "s" / "cells" / "t0" / "diverged.json").is_file()
    with pytest.raises(DivergedError, match="every trial diverged, the first t0: training"):
        done.check()
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/s/search.db")
    assert {trial.state for trial in study.trials} == {optuna.trial.TrialState.PRUNED}
    again, heard = resumed(tmp_path / "s", 2)
    assert (heard.left, again.trials) == (0, done.trials)


def test_an_error_ends_the_search_and_its_trial_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise VerificationError("nothing is quantized")

    with monkeypatch.context() as patch:
        patch.setattr(search_objective, "_quantized", full)
        patch.setattr(module, "side_by_side", failing)
        done, _ = searched(tmp_path / "s", 2)
    assert (done.trials, done.left) == ((), 2)
    with pytest.raises(VerificationError, match="trial t0 failed: nothing is quantized; --resume"):
        done.check()
    done, heard = resumed(tmp_path / "s", 2)
    assert [trial.id for trial in heard.trials] == ["t1", "t2"]
    done.check()


def failing(*args: Any) -> Any:
    """As a process that ends by an error says it."""
    from qwd.sweep.search_processes import Event

    try:
        yield from here(*args)
    except VerificationError as error:
        yield Event(failed=str(error), exit_code=error.exit_code, in_trial=0)


def test_the_objective_of_a_quantization_aware_search_is_its_own_scheme(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done, _ = searched(tmp_path / "s", 1, qat=True, bits=2)
    (trial,) = done.trials
    row = read_run(tmp_path / "s" / "cells" / "t0").metrics[-1]
    assert trial.int8_accuracy == pytest.approx(row["int8_validation_accuracy"])
    assert done.command is not None
    assert "--qat --bits 2" in done.command
    run_search(
        "1",
        None,
        folder=tmp_path / "s",
        resume=True,
        dry_run=False,
        jobs=None,
        config_file=None,
        print_config=False,
        options={},
    )
    assert "w2 qat, validation" in capsys.readouterr().out


def test_a_folder_is_gone_on_with_only_when_asked(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists: continue it with --resume"):
        searched(made, 3)
    with pytest.raises(UsageError, match="is no search; leave --resume out"):
        resumed(tmp_path / "none", 3)
    with pytest.raises(UsageError, match="--epochs 2: the search in .* has 1"):
        resumed(made, 3, epochs=2)
    with pytest.raises(UsageError, match="has its own search.db; leave it out"):
        module.search({}, out=made, resume=True, storage="sqlite:///x.db")
    with pytest.raises(UsageError, match="--search 0: expected a whole number"):
        searched(tmp_path / "new", 0)
    with pytest.raises(UsageError, match="cell t0: --optimizer .*LBFGS"):
        searched(tmp_path / "new", 1, optimizer="torch.optim:LBFGS")
    assert not (tmp_path / "new").exists()


def test_the_best_of_another_folder_is_reported_there(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
    first = module.search({**SMALL}, trials=1, out=tmp_path / "a" / "s", storage=url)
    assert first.report is not None
    notes: list[str] = []

    class Watcher(module.SearchWatcher):
        def note(self, text: str) -> None:
            notes.append(text)

    other = module.search(
        {**SMALL}, trials=1, out=tmp_path / "b" / "s", storage=url, watcher=Watcher()
    )
    assert (other.trials[0].int8_accuracy, other.report) == (first.trials[0].int8_accuracy, None)
    assert notes == [
        "the best trial, t0, was trained in another folder, which reports it on the test split"
    ]
    assert other.command == first.command
    with pytest.raises(UsageError, match="is in a storage of its own: name it with --storage"):
        resumed(tmp_path / "b" / "s", 1)
