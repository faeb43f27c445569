"""Float, post-training and quantization-aware accuracy side by side: per decay and width."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from qwd.config import COURSE_SETTINGS, MACHINE_SETTINGS, QUANTIZATION_SETTINGS
from qwd.report.figures import Interval, ModelReport, QuantizedRow, SchemeResult
from qwd.report.intervals import interval, one_image, spread

Settings = tuple[tuple[str, str], ...]
Key = tuple[Settings, str, int]
"""Settings of the float training, kind and granularity, width of the weights."""
BySeed = dict[int | None, list[float]]

IMMATERIAL = {"seed", *MACHINE_SETTINGS, *QUANTIZATION_SETTINGS, "from"}
"""What float runs may differ in and be one row, and what only quantization-aware ones have."""


def quantized_rows(models: Sequence[ModelReport]) -> tuple[QuantizedRow, ...]:
    """A row per setting, decay, scheme and width that runs were quantized to, activations included.

    Post-training accuracies are those of runs trained in float from scratch. A quantization-aware
    run stands beside those of its own settings, or of the run that it starts from; the difference
    is paired by seed. Empty where there is no quantization-aware run and one width.
    """
    known = [m for m in models if m.config is not None and m.data is not None]
    scratch = [m for m in known if not _config(m).get("qat") and not _config(m).get("from")]
    floats: dict[Settings, list[float]] = {}
    after: dict[Key, BySeed] = {}
    aware: dict[Key, BySeed] = {}
    for model in scratch:
        if model.float_accuracy is not None:
            floats.setdefault(_settings(model), []).append(model.float_accuracy)
        for scheme, bits, result in _static(model, qat=False):
            place = after.setdefault((_settings(model), scheme, bits), {})
            place.setdefault(model.seed, []).append(result.accuracy)
    for model in known:
        for scheme, bits, result in _static(model, qat=True):
            place = aware.setdefault((_settings(_base(model, scratch)), scheme, bits), {})
            place.setdefault(model.seed, []).append(result.accuracy)
    keys = sorted({*after, *aware}, key=lambda key: (key[1], _wd(key), -key[2]))
    if not aware and len({bits for *_, bits in keys}) < 2:
        return ()
    labels = _labels({settings for settings, *_ in keys})
    rows = [
        QuantizedRow(
            setting=labels[key[0]],
            wd=_wd(key),
            scheme=key[1],
            bits=key[2],
            float_accuracy=spread(floats.get(key[0], [])),
            post_training=spread([x for found in after.get(key, {}).values() for x in found]),
            qat=spread([x for found in aware.get(key, {}).values() for x in found]),
            gain_pp=_gain(after.get(key, {}), aware.get(key, {}), 100 * one_image(known)),
        )
        for key in keys
    ]
    return tuple(sorted(rows, key=lambda row: row.setting))


def _config(model: ModelReport) -> dict[str, Any]:
    return model.config or {}


def _settings(model: ModelReport) -> Settings:
    return tuple((k, str(v)) for k, v in _config(model).items() if k not in IMMATERIAL)


def _wd(key: Key) -> float:
    return float(dict(key[0])["wd"])


def _base(model: ModelReport, scratch: Sequence[ModelReport]) -> ModelReport:
    """The float run that a quantization-aware one is compared with: itself, where there is none.

    The run that it starts from; where its folder is not known by that name, the only one of the
    same seed with the settings that a run takes over from another.
    """
    source = _config(model).get("from")
    if not source:
        return model
    place = Path(source).resolve()
    found = [m for m in scratch if m.path is not None and Path(m.path).resolve() == place]
    found = found or [
        m for m in scratch if m.seed == model.seed and _taken_over(m) == _taken_over(model)
    ]
    return found[0] if len(found) == 1 else model


def _taken_over(model: ModelReport) -> Settings:
    return tuple((name, value) for name, value in _settings(model) if name not in COURSE_SETTINGS)


def _labels(found: Collection[Settings]) -> dict[Settings, str]:
    """Model and data of each, and the settings in which those of one model and data differ."""
    labels = {}
    for settings in found:
        own = dict(settings)
        place = own["model"], own["data"]
        alike = [dict(s) for s in found if (dict(s)["model"], dict(s)["data"]) == place]
        differing = [n for n in own if n != "wd" and len({other.get(n) for other in alike}) > 1]
        words = [f"{name.replace('_', '-')} {own[name]}" for name in differing]
        labels[settings] = ", ".join([f"{place[0]} on {place[1]}", *words])
    return labels


def _static(model: ModelReport, *, qat: bool) -> list[tuple[str, int, SchemeResult]]:
    """Results with quantized activations, the first backend's of each; torch's own left out."""
    found: dict[tuple[str, int], SchemeResult] = {}
    for name, result in model.schemes.items():
        static = result.activation_bits is not None and result.clip == "none"
        if static and result.qat == qat and not name.endswith("-default"):
            key = f"{result.scheme}-{result.granularity}", result.weight_bits
            found.setdefault(key, result)
    return [(*key, result) for key, result in found.items()]


def _gain(after: BySeed, aware: BySeed, step_pp: float) -> Interval | None:
    """What quantization-aware training gains over post-training quantization, in pp."""
    seeds = [s for s in after if s in aware and len(after[s]) == len(aware[s]) == 1]
    return interval([100 * (aware[seed][0] - after[seed][0]) for seed in seeds], step_pp)
