"""What int8 predicts where nothing but the common factor of the weights differs: the same."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from qwd.quantize.backend import quantize
from qwd.quantize.folding import deploy
from qwd.quantize.rescale import norm_ratios, power_of_two, rescaled
from qwd.quantize.schemes import AO_STATIC, Scheme
from qwd.report.build import CALIBRATION_N, calibration_batches
from qwd.report.verdict.figures import Certificate, SettingVerdict, SkippedLayer, Verdict
from qwd.train.data import Data
from qwd.train.evaluation import logits


def certify(
    reference: nn.Module,
    other: nn.Module,
    data: Data,
    *,
    seed: int | None = None,
    scheme: Scheme = AO_STATIC,
    calibration_n: int = CALIBRATION_N,
) -> Certificate:
    """Count the int8 predictions of ``reference`` that its scale, taken from ``other``, changes.

    Every layer of ``reference`` directly before a BatchNorm is multiplied by the power of two
    nearest to the ratio of norms of ``other`` and ``reference``; see `qwd.quantize.rescale`. Both
    forms are deployed, calibrated on the same training images and quantized, and predict the test
    split. All changes stem from the rounding of the new variances. The networks, in float32 on
    the CPU, are left as they are; the two runs of one seed differ in their decay.

    Raises UntraceableError, and NotQuantizableError where the scheme's backend cannot carry it.
    """
    ratios = norm_ratios(reference, other)
    scaled, skipped = rescaled(reference, ratios)
    calibration = calibration_batches(data, calibration_n)
    before, after = (
        _predictions(network, scheme, calibration, data) for network in (reference, scaled)
    )
    factors = [power_of_two(ratio) for name, ratio in ratios.items() if name not in skipped]
    return Certificate(
        scheme=scheme.name,
        seed=seed,
        images=len(before),
        changed=int((before != after).sum()),
        rescaled=sum(factor != 1 for factor in factors),
        unchanged=sum(factor == 1 for factor in factors),
        skipped=tuple(SkippedLayer(name=name, reason=why) for name, why in skipped.items()),
    )


def certified(
    verdict: Verdict, setting: str, arm: str, certificates: Sequence[Certificate]
) -> Verdict:
    """``verdict`` with certificates of the contrast of one arm, in the setting of that name."""

    def with_them(one: SettingVerdict) -> SettingVerdict:
        contrasts = [
            replace(c, certificates=tuple(certificates)) if c.arm.name == arm else c
            for c in one.contrasts
        ]
        return replace(one, contrasts=tuple(contrasts))

    settings = [with_them(one) if one.name == setting else one for one in verdict.settings]
    return replace(verdict, settings=tuple(settings))


def _predictions(
    network: nn.Module, scheme: Scheme, calibration: Sequence[Tensor], data: Data
) -> Tensor:
    """Predicted classes on the test split, int64 [n]."""
    made = quantize(deploy(network).module, scheme, calibration)
    device = made.backend.device or torch.device("cpu")
    return logits(made, data.test, device).argmax(dim=1)
