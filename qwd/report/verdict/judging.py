"""From models to a verdict."""

import math
from collections.abc import Sequence

from qwd.report.figures import ModelReport
from qwd.report.verdict import scale_shape
from qwd.report.verdict.answer import answer
from qwd.report.verdict.arms import Line, Runs, lines
from qwd.report.verdict.family import Sample, decided
from qwd.report.verdict.figures import Change, Contrast, SettingVerdict, Verdict
from qwd.report.verdict.margins import PRIMARY, Figure
from qwd.report.verdict.paired import fewest
from qwd.report.verdict.values import compared, step, value

SMALLEST = 1e-300
"""what a logarithm takes for 0"""

Pairs = Sequence[tuple[ModelReport, ModelReport]]


def verdict(
    models: Sequence[ModelReport],
    reference: float | None = None,
    *,
    family_size: int | None = None,
    diverged: Sequence[str] = (),
) -> Verdict:
    """Compare each decay with the reference, seed by seed, in every setting there is.

    Models of one setting differ in decay (its coefficient, form and all else that describes it)
    and seed alone; models that differ in more than that are of several settings, each with its
    own line of decays and answer. ``reference`` is the wd that the others are compared with
    (default: the arm of the least dose). The primary family is raw range, folded range and int8
    accuracy of every pair of decays in every setting, m = 3 x pairs, corrected by Holm's method;
    of a grid that lost a decay, ``family_size`` is the m that was planned, and ``diverged`` names
    the trainings that are missing.

    Raises UsageError where there are no two decays of one setting, where a setting has none with
    the reference's wd, and where a decay has two runs of one seed.
    """
    made, left_out = lines(models, reference)
    return judge(made, left_out, family_size=family_size, diverged=diverged)


def judge(
    made: Sequence[Line],
    left_out: Sequence[str] = (),
    *,
    family_size: int | None = None,
    diverged: Sequence[str] = (),
) -> Verdict:
    """The verdict on lines of decays; `verdict` makes them of models, a caller may by itself.

    `Runs.by_seed` pairs the runs of two decays: what a caller gives the same key is compared.
    ``family_size`` is that of a larger family that these tests are a part of.
    """
    contrasts = [(line, other) for line in made for other in line.others]
    tests = max(family_size or 0, len(PRIMARY) * len(contrasts))
    pairs = [paired(line.reference, other) for line, other in contrasts]
    samples = [samples_of(found) for found in pairs]
    changes = iter(decided([s for of_one in samples for s in of_one], tests))
    found = [
        _contrast(line.reference, other, some, [next(changes) for _ in of_one])
        for (line, other), some, of_one in zip(contrasts, pairs, samples, strict=True)
    ]
    of_lines = iter(found)
    least = fewest(tests)
    return Verdict(
        family_size=tests,
        seeds_for_a_test=least,
        settings=tuple(
            _setting(line, tuple(next(of_lines) for _ in line.others), least) for line in made
        ),
        left_out=tuple(left_out),
        diverged=tuple(diverged),
    )


def paired(reference: Runs, other: Runs) -> Pairs:
    """Runs of both decays that share a seed, in order of seeds."""
    common = sorted(reference.by_seed.keys() & other.by_seed.keys())
    return [(reference.by_seed[seed], other.by_seed[seed]) for seed in common]


def samples_of(pairs: Pairs) -> list[Sample]:
    """Changes of every figure that both models of a pair have."""
    kinds = compared([model for pair in pairs for model in pair])
    found = [sample(pairs, metric, kind) for metric, kind in kinds.items()]
    return [one for one in found if one is not None]


def sample(pairs: Pairs, metric: str, kind: Figure) -> Sample | None:
    """Changes of one figure over the pairs that have it; None where none has."""
    values = [
        (a, b)
        for reference, other in pairs
        if (a := value(reference, metric)) is not None
        and (b := value(other, metric)) is not None
        and (kind.unit != "%" or (a > 0 and math.isfinite(b / a)))
    ]
    if not values:
        return None
    if kind.unit == "%":
        changes = [100 * (b / a - 1) for a, b in values]
        # Swapping two runs turns the sign of this, while 100 (b/a - 1) becomes 100 (a/b - 1).
        signed = [math.log(max(b, SMALLEST)) - math.log(a) for a, b in values]
    else:
        in_points = 100 if kind.unit == "pp" and metric.rpartition(".")[2] != "drop_pp" else 1
        changes = signed = [in_points * (b - a) for a, b in values]
    n = len(values)
    return Sample(
        metric=metric,
        kind=kind,
        changes=tuple(changes),
        signed=tuple(signed),
        step=max(step(model, metric, kind) for pair in pairs for model in pair),
        reference=sum(a for a, _ in values) / n,
        other=sum(b for _, b in values) / n,
    )


def _contrast(reference: Runs, other: Runs, pairs: Pairs, changes: Sequence[Change]) -> Contrast:
    return Contrast(
        arm=other.arm,
        more_decay=other.decays_more(reference),
        seeds=tuple(a.seed for a, _ in pairs if a.seed is not None),
        changes=tuple(changes),
        raw=scale_shape.raw(pairs),
        folded=scale_shape.folded(pairs),
    )


def _setting(line: Line, contrasts: tuple[Contrast, ...], least: int) -> SettingVerdict:
    reference = line.reference.arm
    return SettingVerdict(
        name=line.name,
        reference=reference,
        contrasts=contrasts,
        answer=answer(reference, contrasts, least),
    )
