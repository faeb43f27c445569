"""Float, post-training and quantization-aware accuracy side by side: per decay and width."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from qwd.report.figures import Interval, ModelReport, QuantizedRow, SchemeResult, Spread

Key = tuple[str, float, str, int]
"""What is trained on what, wd, kind and granularity, width of the weights."""
BySeed = dict[int | None, list[float]]


def quantized_rows(models: Sequence[ModelReport]) -> tuple[QuantizedRow, ...]:
    """A row per decay, scheme and width that a run was quantized to, activations included.

    Post-training accuracies are those of runs trained in float from scratch, quantization-aware
    ones those of runs with ``--qat``; the difference is paired by seed. Empty where there is no
    quantization-aware run and one width.
    """
    floats: dict[tuple[str, float], list[float]] = {}
    after: dict[Key, BySeed] = {}
    aware: dict[Key, BySeed] = {}
    for model in models:
        if model.config is None or model.data is None:
            continue
        config = model.config
        place = f"{config['model']} on {config['data']}", float(config["wd"])
        if not config.get("qat") and not config.get("from") and model.float_accuracy is not None:
            floats.setdefault(place, []).append(model.float_accuracy)
        for key, result in _static(model, place):
            if result.qat:
                aware.setdefault(key, {}).setdefault(model.seed, []).append(result.accuracy)
            elif not config.get("qat") and not config.get("from"):
                after.setdefault(key, {}).setdefault(model.seed, []).append(result.accuracy)
    keys = sorted({*after, *aware}, key=lambda k: (k[0], k[2], k[1], -k[3]))
    if not aware and len({key[3] for key in keys}) < 2:
        return ()
    return tuple(
        QuantizedRow(
            setting=key[0],
            wd=key[1],
            scheme=key[2],
            bits=key[3],
            float_accuracy=spread(floats.get((key[0], key[1]), [])),
            post_training=spread([x for found in after.get(key, {}).values() for x in found]),
            qat=spread([x for found in aware.get(key, {}).values() for x in found]),
            gain_pp=_gain(after.get(key, {}), aware.get(key, {})),
        )
        for key in keys
    )


def _static(model: ModelReport, place: tuple[str, float]) -> list[tuple[Key, SchemeResult]]:
    """Results with quantized activations, the first backend's of each; torch's own left out."""
    found: dict[tuple[Key, bool], SchemeResult] = {}
    for name, result in model.schemes.items():
        if result.activation_bits is None or result.clip != "none" or name.endswith("-default"):
            continue
        key = (*place, f"{result.scheme}-{result.granularity}", result.weight_bits)
        found.setdefault((key, result.qat), result)
    return [(key, result) for (key, _), result in found.items()]


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and sample standard deviation; None without values."""
    if not values:
        return None
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(mean=float(np.mean(values)), std=std)


def _gain(after: BySeed, aware: BySeed) -> Interval | None:
    """What quantization-aware training gains over post-training quantization, in pp."""
    seeds = [s for s in after if s in aware and len(after[s]) == len(aware[s]) == 1]
    return interval([100 * (aware[seed][0] - after[seed][0]) for seed in seeds])


def interval(changes: Sequence[float]) -> Interval | None:
    """Mean of paired changes with its 95 % t interval; None without any, no bounds for one."""
    if not changes:
        return None
    mean, n = float(np.mean(changes)), len(changes)
    if n < 2:
        return Interval(mean=mean, low=None, high=None, pairs=n)
    half = float(np.std(changes, ddof=1)) / math.sqrt(n) * float(stats.t.ppf(0.975, n - 1))
    return Interval(mean=mean, low=mean - half, high=mean + half, pairs=n)
