"""More decays, seeds or other values for a sweep that exists."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from qwd.config import MACHINE_SETTINGS
from qwd.errors import UsageError
from qwd.setting import option_name, plain
from qwd.sweep.axes import ordered
from qwd.sweep.cells import cells_of
from qwd.sweep.design import Design
from qwd.sweep.reading import OWN, Given, begin


def extended(stored: Design, given: Given, folder: Path) -> Design:
    """The union of a sweep's design with what is asked for.

    Values and seeds are added; a setting that all cells share may begin to vary, the value that it
    had among its values, and cells that exist keep their names. What computes, and the reference,
    are as asked for now. Raises UsageError, naming the option, where another setting differs.
    """
    asked = Given(given)
    bits_are_reported = "bits" in asked and not stored.settings.get("qat")
    if bits_are_reported and True not in stored.axes.get("qat", ()):
        _same("bits", asked.pop("bits"), stored.reporting.bits, folder)
    for name in ("scheme", "backend", "calibration_n"):
        if name in asked:
            _same(name, asked[name], getattr(stored.reporting, name), folder)
    settings, axes = dict(stored.settings), dict(stored.axes)
    unnamed = dict(stored.unnamed)
    for name, values in asked.items():
        if name in OWN:
            continue
        if name in axes:
            axes[name] = _union(axes[name], values)
        elif name in MACHINE_SETTINGS:
            settings[name] = values[0]
        else:
            old = _of_all(stored, name, values, folder)
            if values == (old,):
                continue
            if len(values) == 1:
                _same(name, values, (old,), folder)
            axes[name], unnamed[name] = _union((old,), values), old
            settings.pop(name, None)
    design = replace(
        stored,
        settings=settings,
        axes={name: axes[name] for name in ordered(axes)},
        seeds=_union(stored.seeds, asked.get("seeds", ())),
        unnamed=unnamed,
        reference=asked.get("reference", stored.reference),
        placebo=stored.placebo or asked.get("placebo", False),
    )
    # Arms of before carry no value of a setting that varies since.
    arms = tuple(
        replace(arm, values={n: (unnamed | dict(arm.values))[n] for n in design.axes})
        for arm in stored.arms
    )
    design = replace(design, arms=arms)
    _check(design)
    return design


def _check(design: Design) -> None:
    """What a design has to satisfy as one that is asked for at once."""
    begin(
        Given(
            **{name: (value,) for name, value in design.settings.items()},
            **design.axes,
            seeds=design.seeds,
            placebo=design.placebo,
            **({} if design.reference is None else {"reference": design.reference}),
        )
    )


def _of_all(stored: Design, name: str, values: tuple[Any, ...], folder: Path) -> Any:
    """The value that a setting has in all cells of the sweep."""
    if name in stored.settings:
        return stored.settings[name]
    found = dict.fromkeys(getattr(cell.config, name) for cell in cells_of(stored))
    if len(found) == 1:
        return next(iter(found))
    raise UsageError(
        f"{option_name(name)} {plain(values)}: the cells in {folder} have {plain(tuple(found))} by "
        "default; choose another --out"
    )


def _union(first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _same(name: str, values: Any, stored: Any, folder: Path) -> None:
    if values != stored:
        raise UsageError(
            f"{option_name(name)} {_shown(values)}: the sweep in {folder} has "
            f"{_shown(stored)}; leave it out, or choose another --out"
        )


def _shown(value: Any) -> str:
    return plain(value) or "none"
