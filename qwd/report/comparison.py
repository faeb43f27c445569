"""Several models side by side: seeds gathered into groups, and what their figures say in words."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from qwd.config import short
from qwd.report.figures import Comparison, Group, ModelReport, Spread, Summary
from qwd.report.reading import readings

# Settings that change the machine's work, not what is trained.
IMMATERIAL = ("seed", "device", "threads", "data_dir", "download")


def compare_models(models: Sequence[ModelReport]) -> Comparison | None:
    """Group models that differ in nothing but the seed; None for a single model."""
    if len(models) < 2:
        return None
    members: dict[Any, list[ModelReport]] = {}
    for model in models:
        members.setdefault(_setting_key(model), []).append(model)
    labels = _labels(list(members))
    groups = [
        (_group(label, found), found) for label, found in zip(labels, members.values(), strict=True)
    ]
    groups.sort(key=lambda pair: (pair[0].wd is None, pair[0].wd or 0.0))
    return Comparison(groups=tuple(g for g, _ in groups), readings=tuple(readings(groups)))


def _setting_key(model: ModelReport) -> tuple[tuple[str, str], ...]:
    """What a run was trained with, seed aside; a checkpoint without settings stands alone."""
    if model.config is None:
        return (("name", model.name), ("path", str(model.path)))
    return tuple((k, str(v)) for k, v in model.config.items() if k not in IMMATERIAL)


def _labels(keys: list[tuple[tuple[str, str], ...]]) -> list[str]:
    """A name per group from the settings in which the groups differ."""
    names = {name for key in keys for name, _ in key}
    differing = {n for n in names if len({dict(key).get(n) for key in keys}) > 1}

    def label(key: tuple[tuple[str, str], ...]) -> str:
        entries = dict(key)
        if "name" in entries:
            return entries["name"]
        shown = [n for n in entries if n in differing or n == "wd"]
        return ", ".join(
            f"{n.replace('_', '-')} {short(float(entries[n])) if n == 'wd' else entries[n]}"
            for n in shown
        )

    return [label(key) for key in keys]


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
    if not found or len(found) < len(values):
        return None
    std = float(np.std(found, ddof=1)) if len(found) > 1 else None
    return Spread(mean=float(np.mean(found)), std=std)
