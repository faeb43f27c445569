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
        for place, (leader, driver) in enumerate(zip(self.leaders, self.drivers, strict=True)):
            optimizer, groups = leader.optimizer, leader.optimizer.param_groups
            attached = attached_to(optimizer)
            assert attached is not None
            # torch warns of schedules that begin before their optimizer has taken a step.
            optimizer._opt_called = True  # type: ignore[attr-defined]
            first = self.leaders.index(driver)
            for t in range(steps):
                for g, group in enumerate(groups):
                    if leader is not driver:
                        group["lr"] = float(rates[t, first, g])
                    rates[t, place, g] = group["lr"]
                    coefficients[t, place, g] = attached.coefficient(group)
                for group in groups:
                    group |= {STEP: group.get(STEP, 0) + 1, PEAK: peak_rate(group)}
                leader.given.step(leader.schedule.rate)
                if leader is driver:
                    leader.schedule.step()
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
