"""What a sensitivity says in words."""

from dataclasses import replace
from typing import Any

import pytest

from qwd.report import advice
from qwd.report.variants import Effect, MixedPrecision, Sensitivity


def an_effect(drop: float, low: float = 0.1) -> Effect:
    return Effect(
        accuracy=0.9 - drop / 100,
        drop_pp=drop,
        drop_low_pp=low,
        drop_high_pp=drop + 0.5,
        flip_n=10,
        flip_rate=0.005,
        kl=0.001,
    )


def finding(
    drop: float, *, weights: float, activations: float, low: float = 0.1, **mixed: Any
) -> Sensitivity:
    return Sensitivity(
        scheme="simulated-static",
        backend="simulated",
        observer="min and max",
        split="validation",
        n=2000,
        float_accuracy=0.9,
        quantized=an_effect(drop, low),
        weights_only=an_effect(weights),
        activations_only=an_effect(activations),
        layers=(),
        activations=(),
        mixed=MixedPrecision(effect=an_effect(0.1), recovered_high_pp=1.2, **mixed)
        if mixed
        else None,
        advice=(),
    )


MIXED = {
    "left_float": ("conv1",),
    "recovered_pp": 0.8,
    "recovered_low_pp": 0.3,
    "by_weights_pp": 0.75,
}


NOTHING = finding(0.05, weights=0, activations=0, low=-0.1)
ACTIVATIONS = finding(0.9, weights=0.1, activations=0.7, **MIXED)
WEIGHTS = finding(0.9, weights=0.9, activations=0.0, **{**MIXED, "recovered_low_pp": -0.1})
SPREAD = {**MIXED, "left_float": ("a", "b", "c"), "recovered_pp": 0.5}
BOTH = finding(0.9, weights=0.5, activations=0.4, **SPREAD)


@pytest.mark.parametrize(
    ("found", "per_channel", "says"),
    [
        (
            NOTHING,
            False,
            "the drop of 0.05 pp is within what 2,000 images can show (95 % interval -0.10 to 0.55 "
            "pp): no layer is shown to need float",
        ),
        (
            ACTIVATIONS,
            False,
            "activations alone account for 0.70 of 0.90 pp, weights alone for 0.10: per-channel "
            "weights will not help\n"
            "leaving conv1 in float recovers 0.80 of 0.90 pp (95 % interval 0.30 to 1.20 pp), 0.75 "
            "pp by the weights alone",
        ),
        (
            replace(ACTIVATIONS, mixed=None),
            True,
            "activations alone account for 0.70 of 0.90 pp, weights alone for 0.10: clipping the "
            "weights will not help",
        ),
        (
            BOTH,
            False,
            "weights alone account for 0.50 and activations alone for 0.40 of 0.90 pp: both are to "
            "blame\n"
            "leaving a, b and c in float recovers 0.50 of 0.90 pp (95 % interval 0.30 to 1.20 pp): "
            "the rest of the drop is spread over the network",
        ),
        (
            WEIGHTS,
            False,
            "weights alone account for 0.90 of 0.90 pp, activations alone for 0.00: more bits for "
            "activations will not help\n"
            "leaving conv1 in float recovers 0.80 of 0.90 pp (95 % interval -0.10 to 1.20 pp), "
            "which these images cannot tell from nothing: the drop has no single place",
        ),
    ],
)
def test_the_advice_in_words(found: Sensitivity, per_channel: bool, says: str) -> None:
    assert "\n".join(advice.sentences(found, per_channel=per_channel)) == says
