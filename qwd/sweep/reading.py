"""From options, variables and files to a `Design`, and from a sweep folder back to it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwd import layers, parsing
from qwd.config import fields
from qwd.errors import InputError, UsageError
from qwd.parsing import Parser
from qwd.registry import suggestion
from qwd.setting import checked, plain, plain_name
from qwd.sweep.axes import ordered, values_parser
from qwd.sweep.base import base_axes, base_seeds
from qwd.sweep.design import SEEDS, WDS, Arm, Design, Reporting
from qwd.sweep.layout import SWEEP, is_sweep


class Given(dict[str, Any]):
    """What is asked for, checked: the tuple of values of a setting by its field, and `OWN` ones."""


MOST_SEEDS = 10_000


def seeds(raw: Any) -> tuple[int, ...]:
    """A count N, which is 0 to N - 1, or a list of seeds and ranges such as ``0,3,8..15``."""
    words = "a count of seeds, or a list with commas such as 0,3,8..15, none of them twice"
    parts = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(parts, list | tuple):
        parts = [raw]
    one = parsing.integer(least=0)
    found: list[int] = []
    try:
        if isinstance(raw, int | str) and len(parts) == 1 and ".." not in str(raw):
            return tuple(range(parsing.integer(least=1, most=MOST_SEEDS)(parts[0])))
        for part in parts:
            ends = re.fullmatch(r"(.+?)\.\.(.+)", part) if isinstance(part, str) else None
            first, last = (one(end) for end in ends.groups()) if ends else (one(part),) * 2
            found += range(first, min(last, first + MOST_SEEDS) + 1)
    except ValueError as error:
        raise ValueError(f"{words} ({error})") from None
    if not 0 < len(found) <= MOST_SEEDS or len(set(found)) < len(found):
        raise ValueError(words)
    return tuple(found)


OWN: dict[str, Parser] = {
    "seeds": seeds,
    "scheme": lambda raw: tuple(parsing.list_of(parsing.text)(raw)) if raw else (),
    "backend": lambda raw: tuple(parsing.list_of(parsing.text)(raw)) if raw else (),
    "calibration_n": parsing.integer(least=1),
    "reference": parsing.number(least=0),
    "placebo": parsing.flag,
}
"""Settings of a sweep beside those of a training; ``bits`` is both, see `begin`."""

RECORDED = ("unnamed", "arms")
"""What a sweep folder says of its own past, and no one asks for."""


def read(
    options: Mapping[str, Any],
    environment: Mapping[str, str],
    file: Mapping[str, Any] | None = None,
) -> Given:
    """What options over ``QWD_*`` variables over a file ask for, each checked by itself.

    An unknown key in any layer is a UsageError with the nearest valid name.
    """
    return Given(layers.merged(options, variables_of(environment), file, _layer))


def variables_of(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that ``QWD_*`` variables give, ``seeds`` among them (None where not given)."""
    environment = dict(environment)
    given = {"seeds": environment.pop("QWD_SEEDS", None)}
    return given | layers.environment_settings(environment)


def _layer(given: Mapping[str, Any], label: Callable[[str], str]) -> dict[str, Any]:
    known = {plain_name(field.name): field for field in fields()}
    found: dict[str, Any] = {}
    for name, raw in given.items():
        if name in RECORDED:
            continue
        name = plain_name(str(name))
        if name in OWN:
            found[name] = checked(label(name), OWN[name], raw)
        elif name == "seed":
            # A file of `qwd train --print-config` has one.
            found.setdefault("seeds", checked(label(name), lambda x: seeds([x]), raw))
        elif name in known:
            field = known[name]
            found[field.name] = checked(label(name), values_parser(field), raw)
        else:
            near = suggestion(name, [*known, *OWN])
            raise UsageError(f"unknown setting {name!r}: {near}")
    return found


def begin(given: Given) -> Design:
    """The grid that is asked for; decays 1e-5 and 1e-4 with seeds 0 to 7 where nothing is said.

    After ``from`` a sweep the decays, the seeds and all else that varies there are its own unless
    given. ``bits`` are widths to train for where ``qat`` is on, and widths to report otherwise.
    Raises UsageError and, where that sweep cannot be read, InputError.
    """
    given = Given(given)
    source = given.get("from_", (None,))[0]
    base = read_design(Path(source)) if source and is_sweep(Path(source)) else None
    reporting = _reporting(given)
    axes = {n: v for n, v in given.items() if n not in OWN and len(v) > 1}
    if base is None:
        axes["wd"] = given.get("wd", WDS)
        chosen = given.get("seeds", SEEDS)
    else:
        if given.get("placebo"):
            raise UsageError(
                f"--placebo: the sweep in {source} has no cells to start its arms from"
            )
        axes |= base_axes(base, source, given)
        chosen = base_seeds(base, source, given)
    return Design(
        settings={n: v[0] for n, v in given.items() if n not in OWN and n not in axes},
        axes={name: axes[name] for name in ordered(axes)},
        seeds=chosen,
        reporting=reporting,
        reference=_checked_reference(given.get("reference"), axes["wd"]),
        placebo=given.get("placebo", False),
    )


def _reporting(given: Given) -> Reporting:
    """How to report; takes ``bits`` out of ``given`` where they are not to train for."""
    from qwd.quantize.schemes import DEFAULT_SCHEMES, expand, on_backends, parse_scheme

    trained_for = True in given.get("qat", ())
    bits = (8,) if trained_for else given.pop("bits", (8,))
    asked = {name: given[name] for name in ("scheme", "backend", "calibration_n") if name in given}
    reporting = Reporting(bits=bits, **asked)
    named = [parse_scheme(name) for name in reporting.scheme] or DEFAULT_SCHEMES
    expand(on_backends(named, reporting.backend), bits)
    return reporting


def _checked_reference(wd: float | None, wds: tuple[float, ...]) -> float | None:
    if wd is not None and wd not in wds:
        raise UsageError(f"--reference {plain(wd)}: expected one of --wd {plain(wds)}")
    return wd


def read_design(folder: Path) -> Design:
    """The design of a sweep folder; InputError, naming the file, where it cannot be read."""
    file = folder / SWEEP
    if not is_sweep(folder):
        raise InputError(f"{folder} is no sweep folder: it has no {SWEEP}")
    content = layers.load_yaml(file)
    try:
        design = begin(read({}, {}, content))
        unnamed = content.get("unnamed") or {}
        arms = [dict(arm) for arm in content.get("arms") or ()]
        return replace(
            design,
            unnamed={name: _one(name, value) for name, value in unnamed.items()},
            arms=tuple(
                Arm(
                    role=checked(
                        "role", parsing.one_of("none", "placebo", "other"), arm.pop("role")
                    ),
                    values={name: _one(name, arm[plain_name(name)]) for name in design.axes},
                )
                for arm in arms
            ),
        )
    except UsageError as error:
        raise InputError(f"{file}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: its arms or unnamed settings are not readable") from error


def _one(name: str, raw: Any) -> Any:
    (value,) = layers.read_all({name: raw}).values()
    return value
