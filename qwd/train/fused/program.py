"""Several sessions trained in one program: the loop of `qwd.train.session`, for all at once."""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from qwd.decay import Form
from qwd.errors import DivergedError
from qwd.train import seeding
from qwd.train.decaying import form_of
from qwd.train.fused import figures
from qwd.train.fused.compiling import Step, pays
from qwd.train.fused.feeding import Feed
from qwd.train.fused.gradients import Alone, Gradients, alone, distance
from qwd.train.fused.pace import Pace
from qwd.train.fused.stack import NotCarriedError, Stack
from qwd.train.fused.updates import Array, momenta, update_of
from qwd.train.session import Session

Ended = Callable[["Program"], None]


class Program:
    """Trains sessions together, from the epoch that all of them have reached.

    ``live`` says which go on: one whose loss is no longer finite is left out, and its neighbours
    do not feel it. Raises NotCarriedError, before any session is changed, where the model cannot be
    carried, and `SeedsApartError` where one program can hold only one seed.
    """

    def __init__(self, sessions: Sequence[Session]):
        first = sessions[0]
        self.sessions = sessions
        self.feed = Feed(sessions)
        amp = first.config.amp
        probe = _probe(first, amp)
        self.update = update_of(first.optimizer)
        self.stack = Stack(sessions, list(probe.gradients), self.update.slots)
        self.gradients = Gradients(self.stack, self.feed.spread, amp)
        self.forms: list[Form] = []
        self.form_of: list[int] = []
        for session in sessions:
            form = form_of(session.config)
            if form not in self.forms:
                self.forms.append(form)
            self.form_of.append(self.forms.index(form))
        self.pace = Pace(sessions)
        self.momenta = momenta([session.optimizer for session in sessions])
        self.live = [True] * len(sessions)
        self.errors: dict[int, DivergedError] = {}
        """of those that diverged"""
        self.names = [*self.update.names, "rate", *(f"wd{f}" for f in range(len(self.forms)))]
        """of the numbers of a step"""
        self.records = False
        """whether the same operations follow at every step"""
        self.seconds = 0.0
        """of the steps of the last epoch"""
        self.tried = False
        """whether the step was given to a compiler"""
        self.step = Step(self)
        self._prepare(probe)

    @property
    def epochs(self) -> int:
        """How many are done, by those that are live."""
        pairs = zip(self.sessions, self.live, strict=True)
        return max((len(session.history) for session, on in pairs if on), default=0)

    def run(self, until: int, ended: Ended = lambda program: None) -> None:
        """Train until so many epochs are done, calling ``ended`` after each."""
        while any(self.live) and self.epochs < until:
            self.run_epoch()
            if not any(self.live):
                break
            ended(self)
            if not self.tried and pays((until - self.epochs) * self.seconds):
                self.tried = True
                if self.step.compile(*self.example):
                    self.step.capture(*self.example)

    def run_epoch(self) -> None:
        """One epoch of all replicas; their rows are appended to their histories."""
        started = time.perf_counter()
        epoch, first = self.epochs, self.sessions[0]
        steps = first.steps_per_epoch
        rates = [self.pace.leaders[place].schedule.rate for place in self.pace.leader_of]
        numbers, coefficients = self._numbers(epoch * steps, steps)
        self.step.epoch_begins()
        for t, (images, labels) in enumerate(self.feed.epoch(epoch)):
            if t < steps - 1:
                self.step(images, labels, numbers[t])
            else:
                self.step.watched(images, labels, numbers[t], coefficients[t])
        losses = (self.step.loss_sum.mean(dim=1) / steps).tolist()
        right = (self.step.right_sum.double().mean(dim=1) / steps).tolist()
        self.seconds = time.perf_counter() - started
        validation = figures.validation(self.stack)
        ranges = figures.folded_ranges(self.stack)
        for r, session in enumerate(self.sessions):
            if not self.live[r]:
                continue
            if isinstance(session, figures.Replica):
                session.known_range = ranges[r]
            try:
                session.epoch_ended(rates[r], (losses[r], right[r]), validation[r])
            except DivergedError as error:
                self.live[r], self.errors[r] = False, error
        share = (time.perf_counter() - started) / len(self.sessions)
        for session, on in zip(self.sessions, self.live, strict=True):
            if on:
                session.history[-1]["seconds"] = share

    def write_back(self) -> None:
        """Make every session whole, as after so many epochs of its own."""
        self.pace.write_back()
        steps = self.epochs * self.sessions[0].steps_per_epoch
        self.stack.write_back(steps, self.update.counts)

    def _numbers(self, taken: int, steps: int) -> tuple[Tensor, Tensor]:
        """What the steps to come need, by `names`: [steps, numbers, blocks, R, 1].

        ``wd0``, ``wd1``, ...: the coefficients of replicas of each form, 0 for the others. Beside
        it the coefficients whatever the form, [steps, blocks, R].
        """
        rates, coefficients = self.pace.ahead(steps)
        leaders = np.array(self.pace.leader_of)
        groups = np.array([block.groups for block in self.stack.blocks])
        lr: Array = rates[:, leaders, groups]
        wd: Array = coefficients[:, leaders, groups]
        counted = np.arange(taken + 1, taken + steps + 1)
        found = {**self.update.numbers(lr, self.momenta, counted), "rate": lr}
        for place in range(len(self.forms)):
            found[f"wd{place}"] = wd * (np.array(self.form_of) == place)
        assert list(found) == self.names
        return self._vector(np.stack(list(found.values()), axis=1)).unsqueeze(-1), self._vector(wd)

    def _vector(self, values: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(
            self.stack.device, self.stack.dtype
        )

    def _prepare(self, probe: Alone) -> None:
        """Find out whether the model can be carried, and record its operations."""
        first, gradients = self.sessions[0], self.gradients
        with aside(first):
            images, labels = next(self.feed.epoch(0))
            random = gradients.is_random(images, labels)
            if random and self.feed.spread:
                raise SeedsApartError
            rounding = self._rounding(probe, images, labels) if gradients.amp else 0.0
            gradients.record(images, labels)
            seeding.seed_everything(first.config.seed, 0)
            gradients.check(images, labels, probe.gradients, rounding)
            # Only the shapes count.
            at = torch.zeros(len(self.names), len(self.stack.blocks), len(self.sessions), 1)
            self.example = images, labels, at.to(self.stack.device, self.stack.dtype)
            self.records = gradients.recorded is not None and not random
            self.step.capture(*self.example)

    def _rounding(self, probe: Alone, images: Tensor, labels: Tensor) -> float:
        """How far bfloat16 takes the gradients of a network alone; the program is held to those.

        Whether vmap carries the model shows in the dtype of the weights, where little is rounded.
        """
        first = self.sessions[0]
        exact = _probe(first, amp=False).gradients
        seeding.seed_everything(first.config.seed, 0)
        Gradients(self.stack, self.feed.spread, amp=False).check(images, labels, exact)
        return distance(probe.gradients, exact)


class SeedsApartError(Exception):
    """The model draws random numbers, which only replicas of one seed share."""


def _probe(session: Session, amp: bool) -> Alone:
    """The first batch's gradients of a session alone."""
    with aside(session):
        images, labels = next(iter(session.batches(0)))
        return alone(session, images, labels, amp)


@contextmanager
def aside(session: Session) -> Iterator[None]:
    """Random numbers and warnings inside are nobody's affair outside."""
    devices = [session.device] if session.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


__all__ = ["NotCarriedError", "Program", "SeedsApartError"]
