"""``--executor auto``: some steps of both ways of training, measured, and what follows."""

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from qwd.errors import reason
from qwd.setting import short
from qwd.sweep.executor import Executor, Task, Unit
from qwd.sweep.fused import Fused, groups, on_gpu, shared_out
from qwd.sweep.processes import Processes, Worker
from qwd.train import seeding
from qwd.train.devices import device_called
from qwd.train.fused.compiling import COST, GAIN, pays
from qwd.train.fused.figures import Replica
from qwd.train.fused.fitting import kind, obstacle
from qwd.train.fused.memory import replicas_that_fit
from qwd.train.fused.program import NotCarriedError, Program, SeedsApartError
from qwd.train.models.known import known
from qwd.train.prepare import data_for

MOST = 16
"""replicas that are measured; more of them cost no more each"""
STEPS, LEAST = 100, 3
"""of each way, at most and at least"""
ENOUGH = 1.0
"""seconds of measurement after which no further step is taken"""
FOREIGN = "the model is someone else's code"
WORTH = 0.8
"""of the time alone, below which one program is chosen: what is measured is not exact"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds of a training step, by replica."""

    alone: float = 0.0
    together: float = 0.0
    steps: int = 0
    """of one training"""
    why: str | None = None
    """why the cells cannot be one program"""

    def compiled(self, replicas: int) -> float | None:
        """``together`` in a program of so many, compilation included; None where it does not pay.

        See `qwd.train.fused.compiling`.
        """
        seconds = replicas * self.steps * self.together
        return self.together * (COST / seconds + GAIN) if pays(seconds) else None

    def factor(self, replicas: int) -> float:
        """Time in a program of so many, of the time alone."""
        return (self.compiled(replicas) or self.together) / self.alone


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An executor, and a line on why it is that one."""

    name: str
    executor: Executor
    why: str


def choose(tasks: Sequence[Task]) -> Choice:
    """Measure each kind of cell of which there are several, and choose."""
    together: list[str] = []
    alone: list[str] = []
    apart: set[Hashable] = set()
    factors: dict[Hashable, float] = {}
    for group in groups(tasks):
        config = group[0].config
        why, factor = obstacle(config), 1.0
        if why is None and len(group) == 1:
            why = "a single cell of its kind"
        if why is None:
            why, factor = _compared(group)
        said = f"{config.model} x {len(group)} ({why})"
        if factor < WORTH:
            together.append(said)
            factors[kind(config)] = factor
        else:
            alone.append(said)
            apart.add(kind(config))
    if together:
        rest = f"; by processes {_some(alone)}" if alone else ""
        return Choice(
            name="fused",
            executor=Fused(frozenset(apart), factors),
            why=f"auto chose fused: {_some(together)}{rest}",
        )
    what = f"auto chose processes: {_some(alone)}" if alone else "auto chose processes"
    return Choice(name="processes", executor=Processes(), why=what)


def factor(unit: Unit) -> float:
    """What the cells of ``unit`` take in one program, of their time alone; measured."""
    found = _measured_safely(unit[:MOST])
    return 1.0 if found.why is not None else found.factor(len(unit))


def _compared(group: Sequence[Task]) -> tuple[str, float]:
    """What was measured of the cells of one kind, and their time together, of that alone."""
    part = shared_out(group, 1 if on_gpu(group[0]) else Processes().jobs(group, None))[0]
    if len(part) == 1:
        return "one cell for each process", 1.0
    found = _measured_safely(part[:MOST])
    if found.why is not None:
        return found.why, 1.0
    compiled = found.compiled(len(part))
    how = f", about {_ms(compiled)} compiled" if compiled else ""
    figures = f"a step and cell takes {_ms(found.together)} in one program{how}"
    return f"{figures}, {_ms(found.alone)} alone", found.factor(len(part))


def _measured_safely(tasks: Sequence[Task]) -> Measured:
    """`measured`, in another process where a model is someone else's code or a GPU is used."""
    try:
        if not on_gpu(tasks[0]):
            found = measured(tasks, foreign=False)
            if found.why != FOREIGN:
                return found
        worker = Worker(tasks[0].config.threads or 1)
        try:
            return Measured(**worker.calibrate(tasks))
        except (OSError, ValueError):
            return Measured(why=f"measuring ended its process: {worker.last_words()}")
        finally:
            worker.end()
    except OSError as error:
        return Measured(why=reason(error))


def measured(tasks: Sequence[Task], foreign: bool = True) -> Measured:
    """Steps of these cells, one by one and together; nothing is written.

    Where not ``foreign``, nothing runs of a model that is someone else's code.
    """
    config = tasks[0].config
    device = device_called(config.device)
    try:
        data = data_for(config)
        with seeding.reproducible(device, config.threads):
            first = Replica(config, data, device)
            if not foreign and not known(first.network):
                return Measured(why=FOREIGN)
            fitting = tasks[: replicas_that_fit(first)]
            sessions = [Replica(task.config, data, device) for task in fitting]
            try:
                program = Program(sessions)
            except SeedsApartError:
                same = [s for s in sessions if s.config.seed == config.seed]
                if len(same) == 1:
                    return Measured(why="random numbers in the model, one cell of each seed")
                sessions, program = same, Program(same)
            alone, together = _fastest(first, program)
    except NotCarriedError as error:
        return Measured(why=str(error))
    except Exception as error:  # of a model or data set that anyone may have written
        return Measured(why=f"{type(error).__name__}: {reason(error)}")
    steps = config.epochs * first.steps_per_epoch
    return Measured(alone=alone, together=together / len(sessions), steps=steps)


def _fastest(session: Replica, program: Program) -> tuple[float, float]:
    """Seconds of the fastest step alone and together; they take turns, as others may compute too.

    Every step of ``session`` has the same batch.
    """
    session.model.train()
    batch = next(iter(session.batches(0)))
    session.step(*batch)
    alone, together = [], []
    started = _now(session.device)
    planned = session.config.epochs * session.steps_per_epoch
    for number in range(max(1, min(STEPS, planned - 1))):  # a schedule may end with the training
        begun = _now(session.device)
        session.step(*batch)
        between = _now(session.device)
        program.step(*program.example)
        ended = _now(session.device)
        alone.append(between - begun)
        together.append(ended - between)
        if number + 1 >= LEAST and ended - started > ENOUGH:
            break
    return min(alone), min(together)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _some(texts: Sequence[str]) -> str:
    rest = f" and {len(texts) - 3} more kinds" if len(texts) > 3 else ""
    return ", ".join(texts[:3]) + rest


def _ms(seconds: float) -> str:
    return f"{short(float(f'{1000 * seconds:.2g}'))} ms"
