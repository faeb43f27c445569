"""A sweep that starts from another one: each cell from the cell of the same settings and seed."""

from typing import Any

from qwd.config import COURSE_SETTINGS
from qwd.errors import UsageError
from qwd.setting import option_name, plain
from qwd.sweep.design import Design


def base_axes(base: Design, source: str, given: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """What varies in the sweep that is started from, with those of its values that are asked for.

    Raises UsageError for values that it does not have, and where it varies a setting of the length
    or the course of training, which the new one has of its own.
    """
    found = {}
    for name, values in base.axes.items():
        if name in COURSE_SETTINGS:
            raise UsageError(
                f"--from {source}: that sweep varies {option_name(name)}, which a training from it "
                "has of its own; name one of its runs with --from"
            )
        found[name] = _some_of(name, values, given.get(name, values), source)
    return found


def base_seeds(base: Design, source: str, given: dict[str, Any]) -> tuple[int, ...]:
    """Its seeds, or those of them that are asked for; UsageError for others."""
    return _some_of("seeds", base.seeds, given.get("seeds", base.seeds), source)


def _some_of(
    name: str, there: tuple[Any, ...], wanted: tuple[Any, ...], source: str
) -> tuple[Any, ...]:
    missing = tuple(value for value in wanted if value not in there)
    if missing:
        raise UsageError(
            f"{option_name(name)} {plain(missing)}: the sweep in {source} has {plain(there)}"
        )
    return wanted
