"""Rates and coefficients of every replica, step by step, as its own schedules give them.

Sessions whose settings differ in the seed alone have one course: the first of them works out the
rates, coefficients and the dose so far for all of them, by the very code of the ordinary loop.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from qwd.decay.attach import PEAK, STEP, attached_to, peak_rate
from qwd.registry import SCHEDULES
from qwd.train.fused.updates import Array
from qwd.train.session import Session

START = ("seed", "from_")
"""Settings that no rate and no coefficient depends on."""
SIZE = (*START, "wd")
"""Settings that no rate of a shipped schedule depends on."""


class Pace:
    """The steps to come of ``sessions``, which all stand at the same step."""

    def __init__(self, sessions: Sequence[Session]):
        self.sessions = sessions
        self.leaders: list[Session] = []
        self.leader_of: list[int] = []
        """of session r, the index of its leader"""
        self.drivers: list[Session] = []
        """of a leader, the first of those with its rates, whose schedule gives them"""
        known: dict[Any, int] = {}
        rated: dict[Any, Session] = {}
        for session in sessions:
            course = _without(START, session)
            if course not in known:
                known[course] = len(self.leaders)
                self.leaders.append(session)
                ships = SCHEDULES.ships(session.config.lr_schedule)
                rates = _without(SIZE if ships else START, session), *session.schedule.rates
                self.drivers.append(rated.setdefault(rates, session))
            self.leader_of.append(known[course])
        for session, place in zip(sessions, self.leader_of, strict=True):
            session.given = self.leaders[place].given
        self.groups = max(len(s.optimizer.param_groups) for s in sessions)

    def ahead(self, steps: int) -> tuple[Array, Array]:
        """Rates and coefficients of the next steps: float64 [steps, leaders, groups] each."""
        shape = (steps, len(self.leaders), self.groups)
        rates, coefficients = np.zeros(shape), np.zeros(shape)
        pairs = list(zip(self.leaders, self.drivers, strict=True))
        decays = []
        for leader in self.leaders:
            # torch warns of schedules that begin before their optimizer has taken a step.
            leader.optimizer._opt_called = True  # type: ignore[attr-defined]
            decays.append(attached_to(leader.optimizer))
        for t in range(steps):
            for place, (leader, driver) in enumerate(pairs):
                decay, groups = decays[place], leader.optimizer.param_groups
                assert decay is not None
                for g, (group, rate) in enumerate(zip(groups, driver.schedule.rates, strict=True)):
                    group["lr"] = rates[t, place, g] = rate
                    coefficients[t, place, g] = decay.coefficient(group)
                    group[STEP] = group.get(STEP, 0) + 1
                    if rate > group.get(PEAK, -1.0):  # the other rates of a peak stay
                        group[PEAK] = peak_rate(group)
                leader.given.step(leader.schedule.rate)
            for leader, driver in pairs:
                if leader is driver:
                    driver.schedule.step()
        for leader, driver in pairs:
            if leader is not driver:
                leader.schedule.load_state_dict(driver.schedule.state_dict())
        return rates, coefficients

    def write_back(self) -> None:
        """Give every session the state of its leader's schedule and parameter groups."""
        for session, place in zip(self.sessions, self.leader_of, strict=True):
            leader = self.leaders[place]
            if session is leader:
                continue
            session.schedule.load_state_dict(leader.schedule.state_dict())
            groups = zip(session.optimizer.param_groups, leader.optimizer.param_groups, strict=True)
            for own, leading in groups:
                own |= {name: leading[name] for name in ("lr", STEP, PEAK)}


def _without(names: Sequence[str], session: Session) -> tuple[Any, ...]:
    """The other settings."""
    return tuple(value for name, value in vars(session.config).items() if name not in names)
