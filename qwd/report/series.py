"""Which checkpoints are those of one training run, and in what order.

Files whose paths are the same but for numbers, and which hold the same tensors in the same shapes:
``checkpoint_0.pth``, ``checkpoint_1.pth``, ..., ``epoch=3-val_loss=0.41.pt``, ``checkpoint-500/``.
The first whole number that no two of them share says when each was written, unless it names a
setting, as in ``wd3`` or ``seed2``.
"""

import re
from collections.abc import Iterable, Sequence

from qwd.report.figures import ModelReport, Series

LEAST = 3
"""two checkpoints are a pair, not a series"""
DIGITS = 15
"""of a step; longer numbers are no steps, and JSON does not hold them exactly"""
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE)
SETTING = re.compile(r"(?:^|[^a-z])(?:wd|lr|s|seed|bs|w)[-_=]?$", re.IGNORECASE)


def find_series(models: Sequence[ModelReport]) -> tuple[Series, ...]:
    """The series among checkpoints without settings, each in the order of its steps."""
    alike: dict[object, list[ModelReport]] = {}
    for model in models:
        if model.config is None and model.path is not None:
            shapes = tuple((t.name, t.figures.shape) for t in model.tensors)
            alike.setdefault((tuple(NUMBER.split(model.path)), shapes), []).append(model)
    return tuple(series for members in alike.values() for series in _among(members))


def in_order(models: Sequence[ModelReport], every: Iterable[Series]) -> list[ModelReport]:
    """The models, those of a series one after the other in its order."""
    series = {name: each for each in every for name in each.models}
    by_name = {model.name: model for model in models}
    names = (n for m in models for n in (series[m.name].models if m.name in series else (m.name,)))
    return [by_name[name] for name in dict.fromkeys(names)]


def _among(models: list[ModelReport]) -> list[Series]:
    """One series, or where no number tells all apart, one for each run: by the numbers before."""
    numbers = [NUMBER.findall(model.path or "") for model in models]
    for before in range(len(numbers[0]) + 1):
        runs: dict[tuple[str, ...], list[ModelReport]] = {}
        for model, found in zip(models, numbers, strict=True):
            runs.setdefault(tuple(found[:before]), []).append(model)
        every = [_series(run) if len(run) >= LEAST else None for run in runs.values()]
        if None not in every:
            return [series for series in every if series is not None]
    return []


def _series(models: list[ModelReport]) -> Series | None:
    paths = [model.path or "" for model in models]
    columns = list(zip(*map(NUMBER.findall, paths), strict=True))
    words = NUMBER.split(paths[0])
    for words_before, values in zip(words, columns, strict=False):
        whole = all(value.isdecimal() and len(value) <= DIGITS for value in values)
        if not whole or SETTING.search(words_before) or len(set(map(int, values))) < len(values):
            continue
        steps = sorted(zip(map(int, values), models, strict=True), key=lambda pair: pair[0])
        return Series(
            name=_pattern([model.name for model in models]),
            steps=tuple(step for step, _ in steps),
            models=tuple(model.name for _, model in steps),
        )
    return None


def _pattern(names: list[str]) -> str:
    """``checkpoint_*.pth``: the numbers in which the names differ as stars."""
    columns = list(zip(*map(NUMBER.findall, names), strict=True))
    shown = ["*" if len(set(values)) > 1 else values[0] for values in columns]
    words = NUMBER.split(names[0])
    return "".join(w + n for w, n in zip(words, [*shown, ""], strict=True))
