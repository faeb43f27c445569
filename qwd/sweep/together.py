"""Cells trained in one program, up to their weights; reports are made cell by cell afterwards."""

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from qwd.errors import QwdError, reason
from qwd.files import sole_user
from qwd.sweep.executor import Note, Task, unheard
from qwd.sweep.found import find, write_divergence
from qwd.sweep.layout import DIVERGED
from qwd.sweep.work import throw_away
from qwd.train import filing, seeding
from qwd.train.devices import device_called
from qwd.train.fused.figures import Replica
from qwd.train.fused.memory import release, replicas_that_fit
from qwd.train.fused.program import NotCarriedError, Program, SeedsApartError
from qwd.train.layout import is_finished, is_run
from qwd.train.prepare import data_for

STORING = 0.05
"""share of the time that may be spent on writing what a killed training is resumed from"""


@dataclass
class Member:
    """A cell that is trained here."""

    task: Task
    session: Replica


def train_together(tasks: Sequence[Task], note: Note = unheard) -> str | None:
    """Train cells of one kind in one program; the reason where that cannot be done.

    ``note`` hears what makes it slower than it could be.

    Half a training is gone on with. A cell that needs more than training, because another process
    has it or its folder cannot be read, is left to `qwd.sweep.work.compute`, as are all cells that
    have no weights at the end. Divergences are stored. Where memory runs out, halves are tried.
    """
    device = device_called(tasks[0].config.device)
    try:
        return _tried(tasks, device, note)
    except torch.OutOfMemoryError:
        pass  # whose frames hold tensors until this block ends
    finally:
        release(device)
    if len(tasks) == 1:
        return "out of memory"
    half = len(tasks) // 2
    return train_together(tasks[:half], note) or train_together(tasks[half:], note)


def _tried(tasks: Sequence[Task], device: torch.device, note: Note) -> str | None:
    config = tasks[0].config
    try:
        with contextlib.ExitStack() as held, seeding.reproducible(device, config.threads):
            members = list(_members(tasks, held, device))
            while going := [m for m in members if not m.session.ended]:
                # Those behind catch up first.
                reached = sorted({len(m.session.history) for m in going})
                until = reached[1] if len(reached) > 1 else config.epochs
                behind = [m for m in going if len(m.session.history) == reached[0]]
                reaching = list(_trained(behind, until, note))
                members = [m for m in members if m not in behind] + reaching
    except NotCarriedError as error:
        return str(error)
    except QwdError as error:
        return str(error)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of a model or data set that anyone may have written
        return f"{type(error).__name__}: {reason(error)}"
    return None


def _members(
    tasks: Sequence[Task], held: contextlib.ExitStack, device: torch.device
) -> Iterator[Member]:
    data = data_for(tasks[0].config)
    for task in tasks:
        folder = task.folder
        try:
            held.enter_context(sole_user(task.claim))
            if task.anew:
                throw_away(folder)
            found = find(folder, task.config)
            if found.ended or found.problem or is_finished(folder):
                continue
            resume = is_run(folder)
            if not resume:
                throw_away(folder)
            settings = filing.settings_to_resume(folder, task.config) if resume else task.config
            held.enter_context(sole_user(folder))
            (folder / DIVERGED).unlink(missing_ok=True)
            session = Replica(settings, data, device)
            filing.begin(session, folder, resume, len(tasks))
        except (QwdError, OSError):
            continue  # whoever computes it alone meets it again, and says so
        yield Member(task, session)


def _trained(members: Sequence[Member], until: int, note: Note) -> Iterator[Member]:
    """Train to that epoch, in as many programs as memory asks for; those that did not diverge."""
    most = replicas_that_fit(members[0].session)
    for start in range(0, len(members), most):
        part = members[start : start + most]
        try:
            yield from _run(part, until, note)
        except SeedsApartError:
            for _, same in itertools.groupby(
                sorted(part, key=lambda m: m.session.config.seed), lambda m: m.session.config.seed
            ):
                yield from _run(list(same), until, note)


def _run(members: Sequence[Member], until: int, note: Note) -> Iterator[Member]:
    release(members[0].session.device)
    program = Program([member.session for member in members])
    keeper = _Keeper(members)
    program.run(until, keeper.epoch_ended)
    keeper.diverged(program)
    keeper.store(program)
    for text in program.step.notes:
        note(text)
    for member, on in zip(members, program.live, strict=True):
        if on:
            if member.session.ended:
                filing.finish(member.session, member.task.folder)
            yield member


class _Keeper:
    """Writes what can be resumed, as often as its cost allows, and divergences at once."""

    def __init__(self, members: Sequence[Member]):
        self.members = members
        self.written: set[int] = set()
        self.next = 0.0

    def epoch_ended(self, program: Program) -> None:
        self.diverged(program)
        if time.monotonic() >= self.next:
            self.store(program)

    def diverged(self, program: Program) -> None:
        for place in program.errors.keys() - self.written:
            task = self.members[place].task
            write_divergence(task.folder, task.config, str(program.errors[place]))
            self.written.add(place)

    def store(self, program: Program) -> None:
        if not any(program.live):
            return
        started = time.monotonic()
        program.write_back()
        for member, on in zip(self.members, program.live, strict=True):
            if on:
                filing.store(member.session, member.task.folder)
        now = time.monotonic()
        self.next = now + (now - started) * (1 / STORING - 1)
