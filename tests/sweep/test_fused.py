"""The fused executor: what is one program, what is not, and that its cells are ordinary ones."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qwd.config import TrainConfig
from qwd.sweep import Task, calibration
from qwd.sweep.calibration import Measured, choose, measured
from qwd.sweep.executor import at_work, executor_called, listen, manner
from qwd.sweep.fused import Fused, groups
from qwd.sweep.planning import seconds
from qwd.sweep.processes import Processes
from qwd.sweep.together import train_together
from qwd.sweep.trials import Estimate
from qwd.sweep.work import compute
from qwd.train.fused.compiling import COST, GAIN
from qwd.train.fused.figures import Replica
from qwd.train.fused.fitting import kind, obstacle
from qwd.train.fused.program import Program
from qwd.train.layout import CHECKPOINT, WEIGHTS
from qwd.train.run import read_run
from qwd.train.session import train
from tests.sweep.small import tasks, weights

HERE = "tests.sweep.test_fused"


def program_of_at_most(replicas: int) -> Callable[[Sequence[Replica]], Program]:
    """A `Program`, where memory is enough for so many."""

    def made(sessions: Sequence[Replica]) -> Program:
        if len(sessions) > replicas:
            raise torch.OutOfMemoryError
        return Program(sessions)

    return made


def deciding(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """A model that looks at its numbers to decide what to do, which no vmap can carry."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))

    def look(module: nn.Module, args: Any, output: Any) -> Any:
        return output if output.sum() > 0 else output * 2

    net.register_forward_hook(look)
    return net


def replicas(task: Task) -> int:
    return json.loads((task.folder / "environment.json").read_text())["replicas"]


@pytest.mark.parametrize(
    "settings",
    [
        {"qat": True},
        {"compile": True},
        {"early_stop": 3},
        {"lr_schedule": "plateau"},
        {"optimizer": "torch.optim:NAdam"},
        {"optimizer_option": ("dampening=0.1",)},
        {"form": "decoupled", "cautious": True},
        {"form": "l1", "proximal": True},
    ],
    ids=str,
)
def test_what_is_not_carried_has_a_reason(settings: dict[str, Any]) -> None:
    assert "is not carried" in str(obstacle(TrainConfig(**settings)))
    assert obstacle(TrainConfig(amp=True)) is None


def test_what_differs_in_numbers_is_of_one_kind() -> None:
    first = kind(TrainConfig())
    alike: list[dict[str, Any]] = [
        {"wd": 1e-2},
        {"seed": 5},
        {"lr": 1.0},
        {"momentum": 0.5},
        {"form": "decoupled"},
    ]
    for same in alike:
        assert kind(TrainConfig(**same)) == first
    unlike: list[dict[str, Any]] = [
        {"batch_size": 64},
        {"model": "mlp"},
        {"momentum": 0},
        {"nesterov": True},
    ]
    for other in unlike:
        assert kind(TrainConfig(**other)) != first


def test_units_follow_the_order_of_the_cells(tmp_path: Path) -> None:
    some = tasks(tmp_path, wd="0,1e-3", seeds=4, model="mlp,small_cnn")
    units = Fused().units(some, 2)
    assert sorted(len(unit) for unit in units) == [4, 4, 4, 4]
    assert len({kind(task.config) for task in units[0]}) == 1
    assert [unit[0].cell for unit in units] == sorted(
        (unit[0].cell for unit in units), key=[task.cell for task in some].index
    )
    apart = frozenset({kind(some[0].config)})
    assert sorted(len(unit) for unit in Fused(apart).units(some, 2)) == [1] * 8 + [4, 4]
    plateau = tasks(tmp_path, lr_schedule="plateau")
    assert [len(unit) for unit in Fused().units(plateau, 2)] == [1] * 4
    assert Fused().not_carried(plateau) == [
        "4 cells by processes, not fused: --lr-schedule plateau is not carried"
    ]


def test_how_cells_are_computed_is_said_as_it_is(tmp_path: Path) -> None:
    some = tasks(tmp_path, wd="0,1e-3", seeds=4, model="mlp,small_cnn")
    assert manner(Processes(), some, 2) == "2 at once"
    assert manner(Processes(), some[:1], 2) == "one after another"
    assert manner(Fused(), some, 2) == "16 cells in 4 programs, 2 at once"
    apart = Fused(frozenset({kind(some[0].config)}))
    assert manner(apart, some, 1) == "8 cells in 1 program, 8 alone, one after another"
    assert manner(Fused(), tasks(tmp_path), 1) == "4 cells in 1 program"
    assert [at_work(Processes(), some, jobs) for jobs in (1, 2)] == [1, 2]
    assert [at_work(Fused(), some, jobs) for jobs in (1, 2)] == [8, 8]
    assert at_work(apart, some, 2) == sum(map(len, apart.units(some, 2)[:2]))


def test_the_estimate_is_of_what_each_process_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = tasks(tmp_path, wd="0,1e-3,1e-2", seeds=1)
    estimate = Estimate(cells={task.cell: (10.0, 1.0) for task in some}, steps={})
    of = kind(some[0].config)
    assert seconds(Processes(), some, 2, estimate) == 22
    assert seconds(Fused(factors={of: 0.5}), some, 1, estimate) == 18
    assert seconds(Fused(factors={of: 0.5}), some, 2, estimate) == 12  # two together, one alone
    found = Measured(alone=0.01, together=0.001, steps=10)
    monkeypatch.setattr(calibration, "_measured_safely", lambda tasks: found)
    assert seconds(Fused(), some, 1, estimate) == pytest.approx(6)


def test_a_program_that_pays_to_compile_is_expected_to_be(tmp_path: Path) -> None:
    long = Measured(alone=0.01, together=0.005, steps=10_000)
    assert long.compiled(10) == pytest.approx(GAIN * 0.005 + COST / 100_000)
    assert long.factor(10) == pytest.approx(GAIN / 2 + COST / 1000)
    assert Measured(alone=0.01, together=0.005, steps=10).factor(10) == 0.5


def test_where_memory_runs_out_fewer_are_trained_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = tasks(tmp_path, epochs=1)
    monkeypatch.setattr("qwd.sweep.together.Program", program_of_at_most(0))
    assert train_together(some) == "out of memory"
    assert not any((task.folder / WEIGHTS).exists() for task in some)
    monkeypatch.setattr("qwd.sweep.together.Program", program_of_at_most(2))
    assert train_together(some) is None
    assert all((task.folder / WEIGHTS).exists() for task in some)


def test_cells_are_whole_runs_trained_together(tmp_path: Path) -> None:
    some = tasks(tmp_path, epochs=2)
    assert train_together(some) is None
    for task in some:
        assert replicas(task) == 4
        assert {CHECKPOINT, WEIGHTS} <= {path.name for path in task.folder.iterdir()}
        run, alone = read_run(task.folder), train(task.config, out=tmp_path / "alone" / task.cell)
        assert run.config == alone.config
        assert list(run.metrics[-1]) == list(alone.metrics[-1])
        assert run.dose == pytest.approx(alone.dose)
        before = weights(task.folder)
        assert compute(task).status == "done"
        assert all((weights(task.folder)[name] == before[name]).all() for name in before)


def test_what_makes_a_program_slower_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(sessions: Sequence[Replica]) -> Program:
        program = Program(sessions)
        program.step.notes.append("its step is slow")
        return program

    monkeypatch.setattr("qwd.sweep.together.Program", made)
    heard: list[str] = []
    assert train_together(tasks(tmp_path, epochs=1), heard.append) is None
    assert heard == ["its step is slow"]


def test_half_a_training_goes_on_and_those_behind_catch_up(tmp_path: Path) -> None:
    some = tasks(tmp_path, epochs=3)

    class StoppedError(Exception):
        pass

    def stop(keeper: Any, program: Any) -> None:
        keeper.store(program)
        if program.epochs == 2:
            raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qwd.sweep.together._Keeper.epoch_ended", stop)
        assert "StoppedError" in str(train_together(some))
    (some[1].folder / CHECKPOINT).unlink()  # killed before it was written
    assert not any((task.folder / WEIGHTS).exists() for task in some)
    assert train_together(some) is None
    for task in some:
        run, alone = read_run(task.folder), train(task.config, out=tmp_path / "alone" / task.cell)
        assert len(run.metrics) == 3
        for name, tensor in weights(alone.path).items():
            assert weights(task.folder)[name].allclose(tensor, atol=1e-3), name


def test_a_divergence_is_stored_and_the_others_go_on(tmp_path: Path) -> None:
    some = tasks(tmp_path, wd=1e-4, lr="0.01,1e20", seeds=2)
    assert train_together(some) is None
    found = {task.cell: compute(task).status for task in some}
    assert sorted(found.values()) == ["diverged", "diverged", "done", "done"]
    assert all(
        (status == "diverged") == ("1e+20" in cell or "1e20" in cell)
        for cell, status in found.items()
    )


def test_where_all_diverge_nothing_is_left_to_train(tmp_path: Path) -> None:
    some = tasks(tmp_path, wd=1e-4, lr=1e20, seeds=2)
    assert train_together(some) is None
    assert [compute(task).status for task in some] == ["diverged", "diverged"]


def test_a_model_that_vmap_cannot_carry_is_trained_by_processes(tmp_path: Path) -> None:
    heard: list[str] = []
    executor = Fused()
    listen(executor, heard.append)
    some = tasks(tmp_path, model=f"{HERE}:deciding")
    assert {outcome.status for outcome in executor.run(some, 2)} == {"done"}
    assert len(heard) == 1
    assert "processes, not fused: vmap fails" in heard[0]


def test_auto_measures_and_says_what_it_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = tasks(tmp_path, wd="0,1e-3", seeds=4)
    heard: list[str] = []
    for together, chosen in ((0.001, "fused"), (0.1, "processes")):
        found = Measured(alone=0.01, together=together, steps=10)
        monkeypatch.setattr(calibration, "_measured_safely", lambda tasks, found=found: found)
        name, executor = executor_called("auto", some)
        listen(executor, heard.append)
        assert (name, type(executor).__name__.lower()) == (chosen, chosen)
        assert heard[-1].startswith(f"auto chose {chosen}: mlp x 8 (")
    assert executor_called("auto", [])[0] == "processes"
    assert executor_called("auto", some[:1])[1].why == (
        "auto chose processes: mlp x 1 (a single cell of its kind)"
    )
    qat = tasks(tmp_path, lr_schedule="plateau")
    assert "--lr-schedule plateau is not carried" in choose(qat).why


def test_steps_are_measured_and_nothing_is_written(tmp_path: Path) -> None:
    some = tasks(tmp_path)
    found = measured(some)
    assert found.why is None
    assert min(found.alone, found.together) > 0
    assert found.steps == some[0].config.epochs * 9
    foreign = tasks(tmp_path, model=f"{HERE}:deciding")
    assert measured(foreign, foreign=False).why == calibration.FOREIGN
    assert "vmap fails" in str(measured(foreign).why)
    assert not list(tmp_path.iterdir())
    assert len(groups(some)) == 1
