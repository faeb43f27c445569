"""What a search is: the settings that are drawn, from which ranges, and those that are given."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from qwd import layers, parsing
from qwd.config import MACHINE_SETTINGS, TrainConfig, fields
from qwd.errors import UsageError
from qwd.grid import grid
from qwd.parsing import Parser
from qwd.registry import OPTIMIZERS
from qwd.setting import checked, option_name, plain, plain_name
from qwd.sweep.axes import exact
from qwd.sweep.reading import variables_of


class Asked(dict[str, Any]):
    """What is asked for, checked: a value or a `Range` by the field of a setting, and `OWN`."""


RANDOM, TPE = "random", "tpe"
SAMPLERS = (RANDOM, TPE)
MOST = 100_000
"""trials of a search"""
OF_A_GRID = ("seeds", "scheme", "backend", "reference", "placebo")
"""Settings of a grid that a search has no use for."""


@dataclass(frozen=True)
class Range:
    """Where a setting is drawn from: evenly in its logarithm, momentum in that of 1 - momentum."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{exact(self.low)}..{exact(self.high)}"


DRAWN = {
    "lr": Range(1e-5, 1e-1),
    "wd": Range(1e-7, 1e-1),
    "momentum": Range(0.9, 0.999),
}
"""10^U(-5, -1), 10^U(-7, -1), 1 - 10^U(-3, -1)."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """A search without the number of its trials: what makes two searches the same."""

    settings: Mapping[str, Any]
    """that are given and the same in all trials, by field of `TrainConfig`"""
    drawn: Mapping[str, Range]
    sampler: str = RANDOM
    calibration_n: int = 512

    def config(self, values: Mapping[str, float]) -> TrainConfig:
        """The settings of the trial with these values of what is drawn."""
        # A trial computes on one thread unless asked otherwise: its weights depend on the number.
        given = {"threads": 1, **self.settings, **values}
        if self.settings.get("from_") is None:
            return TrainConfig(**given)
        from qwd.train.start import continued

        return continued(given)

    @property
    def seed(self) -> int:
        """Of the draws, and of every training."""
        return self.config(self.lowest).seed

    @property
    def lowest(self) -> dict[str, float]:
        """The lower ends of the ranges."""
        return {name: found.low for name, found in self.drawn.items()}

    def to_dict(self) -> dict[str, Any]:
        """As a file holds it, which ``--config`` reads back; ranges as they are typed."""
        return {
            **{name: str(found) for name, found in self.drawn.items()},
            **{
                plain_name(name): list(value) if isinstance(value, tuple) else value
                for name, value in self.settings.items()
            },
            "sampler": self.sampler,
            "calibration_n": self.calibration_n,
        }


def drawn_parser(name: str) -> Parser:
    """A parser of a value that all trials have, or of a `Range` that they draw from."""
    (parse,) = (field.metadata["parse"] for field in fields() if field.name == name)
    words = f"a value, or a range to draw from, as {DRAWN[name]}"

    def one(raw: Any) -> float:
        values = grid(parse)(raw)
        if len(values) != 1:
            raise ValueError(words)
        return values[0]

    def parsed(raw: Any) -> float | Range:
        ends = re.fullmatch(r"(.+?)\.\.([^:]+)", raw) if isinstance(raw, str) else None
        try:
            if ends is None:
                return one(raw)
            found = Range(*(one(end) for end in ends.groups()))
        except ValueError as error:
            text = str(error)
            raise ValueError(text if text == words else f"{words} ({text})") from None
        # momentum is below 1 by its own limits
        if found.low >= found.high or (name != "momentum" and found.low <= 0):
            raise ValueError(f"{words}, which starts above 0 and rises")
        return found

    return parsed


OWN: dict[str, Parser] = {
    "sampler": parsing.one_of(*SAMPLERS),
    "calibration_n": parsing.integer(least=1),
}


def read_space(
    options: Mapping[str, Any],
    environment: Mapping[str, str],
    file: Mapping[str, Any] | None = None,
) -> Asked:
    """What options over ``QWD_*`` variables over a file ask for, each checked by itself.

    An unknown key in any layer is a UsageError with the nearest valid name, and so is one that
    belongs to a grid.
    """
    return Asked(layers.merged(options, variables_of(environment), file, _layer))


def _layer(given: Mapping[str, Any], label: Callable[[str], str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, raw in given.items():
        plain_one = plain_name(str(name))
        if plain_one in OF_A_GRID:
            # A file that has every key of a grid says nothing with those that are empty.
            if raw not in (False, [], ()):
                raise UsageError(
                    f"{label(plain_one)} {_typed(raw)}: belongs to a grid, not to --search"
                )
        elif plain_one in DRAWN:
            found[plain_one] = checked(label(plain_one), drawn_parser(plain_one), raw)
        elif plain_one in OWN:
            found[plain_one] = checked(label(plain_one), OWN[plain_one], raw)
        else:
            rest[name] = raw
    return found | layers.read_all(rest, label)


def begin(asked: Mapping[str, Any]) -> Space:
    """The search that is asked for, checked at both ends of its ranges; UsageError, InputError."""
    given = {**DRAWN, **asked}
    if "momentum" not in asked and not OPTIMIZERS.ships(given.get("optimizer", "sgd")):
        del given["momentum"]  # such a class may have none
    made = Space(
        settings={n: v for n, v in given.items() if n not in OWN and not isinstance(v, Range)},
        drawn={n: given[n] for n in DRAWN if isinstance(given.get(n), Range)},
        **{name: asked[name] for name in OWN if name in asked},
    )
    if not made.drawn:
        raise UsageError("--search: --lr, --wd and --momentum are all given: nothing to draw")
    made.config(made.lowest)
    made.config({name: found.high for name, found in made.drawn.items()})
    return made


def same(stored: Space, asked: Mapping[str, Any], where: str) -> Space:
    """``stored``, which has what is asked for; what computes is as asked for now.

    Raises UsageError, naming the option, where a setting differs.
    """
    machine = {n: v for n, v in asked.items() if n in MACHINE_SETTINGS}
    made = replace(stored, settings={**stored.settings, **machine})
    there = vars(made.config(made.lowest)) | dict(made.drawn)
    there |= {"sampler": made.sampler, "calibration_n": made.calibration_n}
    for name, value in asked.items():
        if name not in machine and value != there[name]:
            raise UsageError(
                f"{option_name(name)} {_typed(value)}: the search in {where} has "
                f"{_typed(there[name])}; leave it out, or choose another --out"
            )
    return made


def _typed(value: Any) -> str:
    if isinstance(value, list | tuple):
        return plain(tuple(value))
    return plain(value)
