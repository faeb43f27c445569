"""A verdict as blocks: the answer, what was tested, what is exploratory, and what int8 ignores."""

import math
from collections.abc import Iterator, Sequence

from qwd.report.metrics import unit
from qwd.report.render import numbers
from qwd.report.render.blocks import Block, Heading, Note, Table
from qwd.report.render.side_by_side import LABELS
from qwd.report.verdict.figures import (
    Certificate,
    Change,
    Contrast,
    Estimate,
    ScaleShape,
    SettingVerdict,
    Verdict,
)
from qwd.report.verdict.words import with_interval

MORE_LABELS = {"codes_used": "codes used, raw", "folded_codes_used": "codes used, folded"}


def blocks(verdict: Verdict) -> Iterator[Block]:
    """Per setting the answer in words, then the tables that it is read from."""
    yield Heading("Verdict")
    for setting in verdict.settings:
        yield from _setting(setting, several=len(verdict.settings) > 1)
    yield Note(
        f"Tested are raw range, folded range and int8 accuracy: sign-flip tests of paired changes "
        f"and equivalence tests against the margin, each corrected by Holm's method for "
        f"{verdict.family_size} tests, which takes {verdict.seeds_for_a_test} seeds at least. All "
        "else is exploratory: 95 % intervals, no test."
    )
    if verdict.diverged:
        yield Note(
            f"Diverged, and in no comparison: {numbers.listed(verdict.diverged)}. Their decays are "
            "compared by the seeds that are left, if any."
        )
    if verdict.left_out:
        yield Note(f"Left out, of no comparison: {numbers.listed(verdict.left_out)}.")


def _setting(setting: SettingVerdict, *, several: bool) -> Iterator[Block]:
    if several:
        yield Heading(setting.name)
    yield from (Note(line) for line in setting.answer.split("\n"))
    yield _primary(setting)
    yield _exploratory(setting)
    parts = [
        (contrast.arm.name, form, found)
        for contrast in setting.contrasts
        for form, found in (("raw", contrast.raw), ("folded", contrast.folded))
        if found is not None
    ]
    if parts:
        yield _factors(parts)
    for contrast in setting.contrasts:
        yield from _certificates(contrast)
        yield from _notes(contrast)
    yield from _uncertified(setting.contrasts)


def _primary(setting: SettingVerdict) -> Table:
    reference = setting.reference.name
    return Table(
        header=(
            *(
                "decay",
                "figure",
                "verdict",
                reference,
                "this decay",
                "change, 95 % interval",
                "seeds",
            ),
            *("margin", "p, Holm", "p equiv."),
        ),
        keys=2,
        words=("verdict",),
        rows=tuple(
            (
                contrast.arm.name,
                _label(change.metric),
                change.phrase or numbers.NONE,
                numbers.figure(change.reference, unit(change.metric)),
                numbers.figure(change.other, unit(change.metric)),
                _change(change),
                numbers.count(change.pairs),
                f"{change.margin:g} {change.unit}",
                _p(change.p_holm),
                _p(change.p_equivalence_holm),
            )
            for contrast in setting.contrasts
            for change in contrast.changes
            if change.primary
        ),
    )


def _exploratory(setting: SettingVerdict) -> Table:
    """A row per figure, a column per decay."""
    changes = [{c.metric: c for c in contrast.changes} for contrast in setting.contrasts]
    arms = [contrast.arm.name for contrast in setting.contrasts]
    margins = {
        metric: f"{change.margin:g} {change.unit}"
        for found in changes
        for metric, change in found.items()
        if not change.primary
    }
    return Table(
        header=("exploratory change", "margin", *arms),
        rows=tuple(
            (
                _label(metric),
                margin,
                *(_change(found[metric]) if metric in found else numbers.NONE for found in changes),
            )
            for metric, margin in margins.items()
        ),
    )


def _factors(parts: list[tuple[str, str, ScaleShape]]) -> Table:
    return Table(
        header=(
            "decay",
            "range",
            "ratio of ranges",
            "common factor, 95 %",
            "shape, 95 %",
            "tensors",
        ),
        keys=2,
        rows=tuple(
            (
                name,
                form,
                f"{math.exp(found.total.mean):.4f}",
                _factor(found.scale),
                _factor(found.shape),
                numbers.count(found.tensors),
            )
            for name, form, found in parts
        ),
    )


def _certificates(contrast: Contrast) -> Iterator[Note]:
    for found in contrast.certificates:
        yield Note(f"{_certificate(contrast.arm.name, found)}.")


def _certificate(decay: str, found: Certificate) -> str:
    """``0 of 360 ao-static predictions change``, and what was done to the network."""
    seed = f", seed {found.seed}" if found.seed is not None else ""
    if found.rescaled:
        said = (
            f"{numbers.count(found.changed)} of {numbers.count(found.images)} {found.scheme} "
            f"predictions change where {_layers(found.rescaled)} before BatchNorm "
            f"{'is' if found.rescaled == 1 else 'are'} multiplied by the power of two nearest to "
            "the ratio of norms"
        )
        if found.unchanged:
            said += f"; {numbers.count(found.unchanged)} more have the factor 1"
    else:
        said = "nothing is rescaled"
        if found.unchanged:
            said += (
                f": the power of two nearest to the ratio of norms is 1 for "
                f"{_layers(found.unchanged)} before BatchNorm"
            )
    if found.skipped:
        skipped = [f"{layer.name} ({layer.reason})" for layer in found.skipped]
        said += f"; skipped: {numbers.listed(skipped)}"
    return f"Certificate ({decay}{seed}): {said}"


def _layers(n: int) -> str:
    return f"{numbers.count(n)} layer{'s' * (n != 1)}"


def _uncertified(contrasts: Sequence[Contrast]) -> Iterator[Note]:
    """Why there is no certificate, each reason once."""
    at: dict[str, list[str]] = {}
    for contrast in contrasts:
        if contrast.uncertified:
            at.setdefault(contrast.uncertified, []).append(contrast.arm.name)
    for why, arms in at.items():
        yield Note(f"No certificate at {numbers.listed(arms)}: {why}.")


def _notes(contrast: Contrast) -> Iterator[Note]:
    """What is doubtful about primary figures, each doubt once."""
    about: dict[str, list[str]] = {}
    for change in contrast.changes:
        if change.primary and change.note:
            about.setdefault(change.note, []).append(_label(change.metric))
    for note, labels in about.items():
        yield Note(f"{contrast.arm.name}, {', '.join(labels)}: {note}.")


def _label(metric: str) -> str:
    return LABELS.get(metric) or MORE_LABELS.get(metric, metric.removeprefix("schemes."))


def _change(change: Change) -> str:
    return with_interval(change.mean, change.low, change.high, change.unit)


def _factor(log: Estimate) -> str:
    """exp of a mean logarithm, with its interval."""
    if log.low is None or log.high is None:
        return f"{math.exp(log.mean):.4f}"
    return f"{math.exp(log.mean):.4f} ({math.exp(log.low):.4f} to {math.exp(log.high):.4f})"


def _p(value: float | None) -> str:
    return numbers.NONE if value is None else f"{value:.2g}"
