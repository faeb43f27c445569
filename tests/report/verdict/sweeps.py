"""Grids of decays and seeds for tests of the verdict: as samples, and as models."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwd.config import TrainConfig
from qwd.report.figures import ModelReport
from qwd.report.verdict.family import Sample
from qwd.report.verdict.margins import PRIMARY
from tests.report.builders import model, summary

Array = NDArray[np.float64]
IMAGES = 360
STEPS = {"%": 1e-5, "pp": 100 / IMAGES}


def sample(metric: str, reference: Array, other: Array) -> Sample:
    """Paired changes of one primary figure; accuracies are fractions of 360 images."""
    kind = PRIMARY[metric]
    if kind.unit == "%":
        changes, signed = 100 * (other / reference - 1), np.log(other / reference)
    else:
        changes = signed = 100 * (other - reference)
    return Sample(
        metric=metric,
        kind=kind,
        changes=tuple(changes.tolist()),
        signed=tuple(signed.tolist()),
        step=STEPS[kind.unit],
        reference=float(reference.mean()),
        other=float(other.mean()),
    )


def sweep(
    generator: np.random.Generator, *, decays: int, seeds: int, range_effect: float = 0.0
) -> list[Sample]:
    """Samples of a grid: ranges lognormal, accuracies binomial, seeds in common.

    ``range_effect`` is added to the logarithm of the raw range of all decays but the first.
    """
    of_seed = generator.normal(0, 0.1, (1, seeds))
    raw = np.exp(of_seed + generator.normal(0, 0.03, (decays, seeds)))
    raw[1:] *= np.exp(range_effect)
    folded = np.exp(of_seed + 0.04 * generator.standard_t(4, (decays, seeds)))
    chance = 0.97 + 0.005 * generator.standard_normal((1, seeds)).clip(-2, 2)
    accuracy = generator.binomial(IMAGES, chance, (decays, seeds)) / IMAGES
    grids = {"range": raw, "folded_range": folded, "int8_accuracy": accuracy}
    return [
        sample(metric, grid[0], grid[i]) for i in range(1, decays) for metric, grid in grids.items()
    ]


def run(wd: float, seed: int, *, dose: float | None = None, **figures: Any) -> ModelReport:
    """A model of one cell; ``figures`` are of its summary."""
    config = TrainConfig(wd=wd, seed=seed).to_dict()
    made = model(f"wd{wd:g}-s{seed}", seed=seed, config=config, dose=wd if dose is None else dose)
    return replace(made, summary=summary(**figures))


def two_decays(seeds: int = 8, *, factor: float = 0.9) -> list[ModelReport]:
    """wd 1e-5 and 1e-4: the raw range is ``factor`` times as large, all else is noise."""
    generator = np.random.default_rng(1)
    models = []
    for seed in range(seeds):
        noise = generator.normal(0, 0.003, 4)
        models += [
            run(1e-4, seed, range=factor * (1 + noise[0]), folded_range=0.465 * (1 + noise[1])),
            run(1e-5, seed, range=1 + noise[2], folded_range=0.465 * (1 + noise[3])),
        ]
    return models
