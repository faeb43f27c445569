"""Arms without an effect: how often does the verdict claim a difference where there is none?

Beside the grid, for each of its settings: cells with a decay too small to matter, which are
compared with cells without decay, and cells of the reference decay with other seeds, compared with
those of the grid. Differences in either are chance alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from qwd.config import DECAY_SETTINGS
from qwd.report.figures import ModelReport, Report
from qwd.report.verdict.arms import Line, Runs
from qwd.report.verdict.figures import Verdict
from qwd.report.verdict.judging import judge
from qwd.report.verdict.words import DIFFERENCES
from qwd.setting import short
from qwd.sweep.axes import part_of_id
from qwd.sweep.cells import Cell, cells_of, combinations
from qwd.sweep.design import OTHER_SEEDS, Arm, Design

DOSE = 0.001
"""too small to matter: a weight without gradient loses a tenth of a percent"""


def with_arms(design: Design) -> tuple[Design, tuple[str, ...]]:
    """The design with the arms of its placebo, and what could not be had.

    The decay of dose 0.001 is rounded to three digits. A form without a dose has no such arm.
    """
    from qwd.sweep.trials import Trials
    from qwd.train.planning import course

    trials, notes = Trials(), []
    arms = list(design.arms)
    for values in _settings(design):
        (cell, *_) = cells_of(replace(design, axes={n: (v,) for n, v in values.items()}, arms=()))
        wd = course(cell.config, trials.images(cell.config)).wd_for(DOSE)
        if wd is None:
            notes.append(f"--placebo: {cell.config.form} under {cell.config.optimizer} has no dose")
        else:
            arms.append(Arm(role="placebo", values={**values, "wd": float(f"{wd:.3g}")}))
            if 0.0 not in design.axes["wd"]:
                arms.append(Arm(role="none", values={**values, "wd": 0.0}))
        arms.append(Arm(role="other", values=values))
    kept = {(arm.role, *arm.values.items()): arm for arm in arms}
    return replace(design, arms=tuple(kept.values())), tuple(notes)


def _settings(design: Design) -> Iterator[dict[str, Any]]:
    """Each setting at the reference wd, and the first of all else that describes a decay."""
    decay = {n: v[:1] for n, v in design.axes.items() if n in DECAY_SETTINGS}
    decay["wd"] = (design.reference_wd,)
    return combinations(replace(design, axes={**design.axes, **decay}))


def placebo_report(
    design: Design,
    cells: Sequence[Cell],
    models: Mapping[str, ModelReport],
    family_size: int | None = None,
) -> Report | None:
    """The models of the arms and of what they are compared with, and the verdict on them.

    Each arm is judged as one decay of the grid is, whose tests are ``family_size`` in number
    (default: those of one comparison). None where no pair is finished.
    """
    lines = []
    used: dict[str, ModelReport] = {}
    for arm in design.arms:
        wd = {"placebo": 0.0, "other": arm.values["wd"]}.get(arm.role)
        if wd is None:
            continue
        against = {**arm.values, "wd": wd}
        reference = _runs(cells, models, against, (None, "none"), 0)
        shift = OTHER_SEEDS if arm.role == "other" else 0
        other = _runs(cells, models, arm.values, (arm.role,), shift)
        if not reference.by_seed.keys() & other.by_seed.keys():
            continue
        what = f"seeds + {OTHER_SEEDS}" if shift else f"wd {short(arm.values['wd'])}, dose {DOSE:g}"
        named = [part_of_id(n, v) for n, v in arm.values.items() if n != "wd"]
        title = ", ".join(["placebo", *named, f"{what} against wd {short(wd)}"])
        lines.append(Line(name=title, reference=reference, others=(replace(other, name=what),)))
        for runs in (reference, other):
            used |= {model.name: model for model in runs.by_seed.values()}
    if not lines:
        return None
    # Pooled they would be tested more strictly than the grid, or less.
    each = [judge([line], family_size=family_size) for line in lines]
    settings = tuple(setting for found in each for setting in found.settings)
    return Report(models=tuple(used.values()), verdict=replace(each[0], settings=settings))


def _runs(
    cells: Sequence[Cell],
    models: Mapping[str, ModelReport],
    values: Mapping[str, Any],
    roles: tuple[str | None, ...],
    shift: int,
) -> Runs:
    """The finished cells of these values, by seed."""
    found = {
        cell.seed - shift: models[cell.id]
        for cell in cells
        if cell.id in models and cell.role in roles and dict(cell.values) == dict(values)
    }
    dose = next(iter(found.values())).dose if found else None
    return Runs(name=f"wd {short(values['wd'])}", wd=values["wd"], dose=dose, by_seed=found)


def alarms(verdict: Verdict) -> tuple[int, int]:
    """Differences that are claimed, and primary figures that were looked at."""
    words = [
        change.word
        for setting in verdict.settings
        for contrast in setting.contrasts
        for change in contrast.changes
        if change.primary
    ]
    return sum(word in DIFFERENCES for word in words), len(words)
