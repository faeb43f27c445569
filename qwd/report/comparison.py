"""Several models side by side: seeds gathered into groups, and what their figures say in words."""

import dataclasses
import math
from collections.abc import Sequence

from qwd.report.figures import Comparison, Group, ModelReport, Spread, Summary
from qwd.report.grouping import Key, labels, settings, settings_but_decay
from qwd.report.intervals import spread as spread_of
from qwd.report.ptq_qat import quantized_rows
from qwd.report.reading import readings
from qwd.report.series import find_series


def compare_models(models: Sequence[ModelReport]) -> Comparison | None:
    """Group models that differ in nothing but the seed; None for a single model.

    Groups stand in order of their dose, the least first, and are read against the first of those
    that differ from them in their decay alone and were measured on the same images.
    """
    if len(models) < 2:
        return None
    members: dict[Key, list[ModelReport]] = {}
    for model in models:
        members.setdefault(settings(model), []).append(model)
    names = labels(list(members))
    pairs = [
        (_group(name, found), found) for name, found in zip(names, members.values(), strict=True)
    ]
    pairs.sort(key=lambda pair: _amount(pair[0]))
    series = find_series(models)
    of_checkpoint = {found[0].name: (group, found) for group, found in pairs}
    sentences = [s for each in series for s in readings([of_checkpoint[n] for n in each.ends])]
    comparable: dict[Key, list[tuple[Group, list[ModelReport]]]] = {}
    passed = {name for each in series for name in each.models[:-1]}
    for group, found in pairs:
        if found[0].name not in passed:
            comparable.setdefault(settings_but_decay(found[0]), []).append((group, found))
    sentences += [s for together in comparable.values() for s in readings(together)]
    return Comparison(
        groups=tuple(group for group, _ in pairs),
        quantized=quantized_rows(models),
        series=series,
        readings=tuple(sentences),
    )


def _amount(group: Group) -> tuple[float, float]:
    """How much decay: by dose, or where there is none by coefficient; checkpoints last."""
    unknown = math.inf
    return (
        unknown if group.dose is None else group.dose,
        unknown if group.wd is None else group.wd,
    )


def _group(label: str, models: list[ModelReport]) -> Group:
    first = models[0]
    return Group(
        name=label,
        models=tuple(m.name for m in models),
        wd=first.config["wd"] if first.config else None,
        dose=first.dose,
        metrics={
            field.name: spread([getattr(m.summary, field.name) for m in models])
            for field in dataclasses.fields(Summary)
        },
    )


def spread(values: Sequence[float | None]) -> Spread | None:
    """Mean and sample standard deviation; None where any value is missing."""
    found = [value for value in values if value is not None]
    return spread_of(found) if len(found) == len(values) else None
