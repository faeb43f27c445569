"""Several models side by side: seeds gathered into groups, and what their figures say in words."""

import dataclasses
import math
from collections.abc import Sequence

from qwd.config import DECAY_SETTINGS, MACHINE_SETTINGS
from qwd.report.figures import Comparison, Group, ModelReport, Spread, Summary
from qwd.report.ptq_qat import quantized_rows
from qwd.report.ptq_qat import spread as spread_of
from qwd.report.reading import readings
from qwd.setting import short

Key = tuple[tuple[str, str], ...]
UNSAID = ("None", "False")
"""Values of settings that do not apply, and of flags that are not set."""


def compare_models(models: Sequence[ModelReport]) -> Comparison | None:
    """Group models that differ in nothing but the seed; None for a single model.

    Groups stand in order of their dose, the least first, and are read against the first of those
    that differ from them in their decay alone and were measured on the same images.
    """
    if len(models) < 2:
        return None
    members: dict[Key, list[ModelReport]] = {}
    for model in models:
        members.setdefault(_settings(model), []).append(model)
    labels = _labels(list(members))
    pairs = [
        (_group(label, found), found) for label, found in zip(labels, members.values(), strict=True)
    ]
    pairs.sort(key=lambda pair: _amount(pair[0]))
    comparable: dict[Key, list[tuple[Group, list[ModelReport]]]] = {}
    for group, found in pairs:
        comparable.setdefault(_setting_but_decay(found[0]), []).append((group, found))
    sentences = [s for together in comparable.values() for s in readings(together)]
    return Comparison(
        groups=tuple(group for group, _ in pairs),
        quantized=quantized_rows(models),
        readings=tuple(sentences),
    )


def _amount(group: Group) -> tuple[float, float]:
    """How much decay: by dose, or where there is none by coefficient; checkpoints last."""
    unknown = math.inf
    return (
        unknown if group.dose is None else group.dose,
        unknown if group.wd is None else group.wd,
    )


def _settings(model: ModelReport) -> Key:
    """What a run was trained with, seed aside; a checkpoint without settings stands alone."""
    if model.config is None:
        return (("name", model.name), ("path", str(model.path)))
    # Where a run started from differs with its seed.
    immaterial = ("seed", "from", *MACHINE_SETTINGS)
    return tuple((k, str(v)) for k, v in model.config.items() if k not in immaterial)


def _setting_but_decay(model: ModelReport) -> Key:
    digest = model.data.sha256 if model.data else ""
    if model.config is None:
        return (("data", digest),)
    rest = [(k, v) for k, v in _settings(model) if k not in DECAY_SETTINGS]
    return (*rest, ("digest", digest))


def _labels(keys: list[Key]) -> list[str]:
    """A name per group from the settings in which the runs among them differ."""
    runs = [dict(key) for key in keys if "name" not in dict(key)]
    differing = {n for run in runs for n in run if len({r.get(n) for r in runs}) > 1}

    def label(key: Key) -> str:
        entries = dict(key)
        if "name" in entries:
            return entries["name"]
        # A setting that does not apply is None.
        shown = [n for n in entries if (n in differing and entries[n] not in UNSAID) or n == "wd"]
        return ", ".join(_setting(name, entries[name]) for name in shown)

    return [label(key) for key in keys]


def _setting(name: str, value: str) -> str:
    """A setting in a label: a flag by its name alone."""
    plain = name.replace("_", "-")
    if value == "True":
        return plain
    return f"{plain} {short(float(value)) if name == 'wd' else value}"


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
