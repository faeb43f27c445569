"""What int8 predicts where nothing but the common factor of the weights differs: the same."""

import functools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from qwd.quantize.backend import quantize
from qwd.quantize.folding import deploy
from qwd.quantize.rescale import norm_ratios, power_of_two, rescaled
from qwd.quantize.schemes import AO_STATIC, Scheme
from qwd.report.accuracies import CALIBRATION_N, calibration_batches
from qwd.report.verdict.figures import Certificate, SettingVerdict, SkippedLayer, Verdict
from qwd.train.data import Data
from qwd.train.evaluation import logits


class Certifier:
    """Certificates of one network against several others; its own predictions are made once."""

    def __init__(
        self,
        reference: nn.Module,
        data: Data,
        *,
        scheme: Scheme = AO_STATIC,
        calibration_n: int = CALIBRATION_N,
    ):
        self.reference, self.data, self.scheme = reference, data, scheme
        self._calibration = calibration_batches(data, calibration_n)

    def against(self, other: nn.Module, seed: int | None = None) -> Certificate:
        """The certificate of one other network of the same structure; see `certify`."""
        ratios = norm_ratios(self.reference, other)
        scaled, skipped = rescaled(self.reference, ratios)
        factors = [power_of_two(ratio) for name, ratio in ratios.items() if name not in skipped]
        moved = sum(factor != 1 for factor in factors)
        # A network that stays as it is needs no second look.
        changed = int((self._before != self._predictions(scaled)).sum()) if moved else 0
        return Certificate(
            scheme=self.scheme.name,
            seed=seed,
            images=len(self.data.test),
            changed=changed,
            rescaled=moved,
            unchanged=len(factors) - moved,
            skipped=tuple(SkippedLayer(name=name, reason=why) for name, why in skipped.items()),
        )

    @functools.cached_property
    def _before(self) -> Tensor:
        return self._predictions(self.reference)

    def _predictions(self, network: nn.Module) -> Tensor:
        """Predicted classes on the test split, int64 [n]."""
        made = quantize(deploy(network).module, self.scheme, self._calibration)
        device = made.backend.device or torch.device("cpu")
        return logits(made, self.data.test, device).argmax(dim=1)


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
    made = Certifier(reference, data, scheme=scheme, calibration_n=calibration_n)
    return made.against(other, seed)


def certified(
    verdict: Verdict,
    setting: str,
    arm: str,
    certificates: Sequence[Certificate],
    why_not: str | None = None,
) -> Verdict:
    """``verdict`` with certificates of the contrast of one arm, in the setting of that name.

    ``why_not`` is why there is none.
    """

    def with_them(one: SettingVerdict) -> SettingVerdict:
        contrasts = [
            replace(c, certificates=tuple(certificates), uncertified=why_not)
            if c.arm.name == arm
            else c
            for c in one.contrasts
        ]
        return replace(one, contrasts=tuple(contrasts))

    settings = [with_them(one) if one.name == setting else one for one in verdict.settings]
    return replace(verdict, settings=tuple(settings))
