"""Which parts of a network lose accuracy under a scheme, and what leaving some in float recovers.

A part is a layer, its weights and its output, or an activation that is no layer's output. Every
variant is the same simulated network (`qwd.quantize.simulated`), calibrated once, with some of its
parts quantized and the others in float, on the same images of the validation split.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from qwd.quantize.backend import NotQuantizableError, QuantizedNetwork, quantize
from qwd.quantize.schemes import Scheme
from qwd.report import advice
from qwd.report.function import finite
from qwd.report.paired import difference, effect, right
from qwd.report.variants import Effect, MixedPrecision, Part, Sensitivity
from qwd.report.watching import Watcher
from qwd.train.data import Data, Split
from qwd.train.evaluation import accuracy, logits

IMAGES = 2000
"""of the validation split, at most, where nobody asks for another number"""
MOST_LEFT = 3
"""parts that mixed precision leaves in float at most"""
WIDTH = 5
"""candidates tried as a further part to leave in float: the best when left in float alone"""

Names = Collection[str]


def sensitivity(
    network: nn.Module,
    scheme: Scheme,
    data: Data,
    calibration: Sequence[Tensor],
    *,
    n: int,
    device: torch.device,
    watcher: Watcher,
) -> Sensitivity:
    """Measure every part of a deployed float ``network`` on ``n`` images of the validation split.

    ``scheme`` is one of the simulated backend; ``calibration`` are batches of training images
    [N, C, H, W]. Raises NotQuantizableError where the simulated backend cannot carry the network
    or outputs are not finite, and VerificationError where nothing is quantized.
    """
    made = quantize(network, scheme, calibration)
    probe = _Probe(network, made, subset(data.validation, n), device, watcher)
    layers = tuple(made.converted.layers)
    others = tuple(name for name in made.converted.activations if name not in layers)
    names = (*layers, *others)
    most_left = min(MOST_LEFT, len(names) - 1)
    further = max(most_left - 1, 0) * (WIDTH + 1) + 1
    watcher.begins("sensitivity", 3 + 2 * len(names), further, len(probe.split))

    whole = probe.variant(None, None)
    weights_only, activations_only = probe.variant(None, ()), probe.variant((), None)
    alone = {name: probe.alone(name) for name in names}
    left = {name: probe.left_float((name,)) for name in names}
    parts = {name: _part(name, alone[name], left[name], whole) for name in names}
    # A drop within what the images can show gives no part a reason to stay in float.
    lossy = whole.effect.drop_low_pp > 0 and most_left > 0
    mixed = _mixed(probe, whole, alone, left, most_left) if lossy else None
    found = Sensitivity(
        scheme=scheme.name,
        backend=scheme.backend,
        observer=made.description.observer,
        split="validation",
        n=len(probe.split),
        float_accuracy=accuracy(probe.reference, probe.split.labels),
        quantized=whole.effect,
        weights_only=weights_only.effect,
        activations_only=activations_only.effect,
        layers=_ranked(parts[name] for name in layers),
        activations=_ranked(parts[name] for name in others),
        mixed=mixed,
        advice=(),
    )
    per_channel = scheme.granularity == "channel"
    return replace(found, advice=tuple(advice.sentences(found, per_channel=per_channel)))


def subset(split: Split, n: int) -> Split:
    """The same ``n`` images of a split at every call, or all where there are no more."""
    if n >= len(split):
        return split
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return split.subset(order[:n].sort().values)


@dataclass(frozen=True)
class _Variant:
    effect: Effect
    right: Tensor
    """bool [n], by image"""


class _Probe:
    """Evaluates variants on fixed images against the network in float."""

    def __init__(
        self,
        network: nn.Module,
        made: QuantizedNetwork,
        split: Split,
        device: torch.device,
        watcher: Watcher,
    ):
        self.network = made.to(device)
        self.split, self.device, self.watcher = split, device, watcher
        self.layers = frozenset(made.converted.layers)
        self.activations = frozenset(made.converted.activations)
        self.reference = logits(network.to(device), split, device)
        network.cpu()

    def variant(self, weights: Names | None, activations: Names | None) -> _Variant:
        """With these weights and activations quantized, all of them where None."""
        with self.network.converted.selected(weights=weights, activations=activations):
            outputs = logits(self.network, self.split, self.device)
        if not finite(outputs):
            raise NotQuantizableError("the quantized outputs are not finite")
        self.watcher.evaluated()
        labels = self.split.labels
        return _Variant(effect(self.reference, outputs, labels), right(outputs, labels))

    def left_float(self, names: Names, *, weights_alone: bool = False) -> _Variant:
        """With everything quantized but these parts, or but their weights."""
        activations = None if weights_alone else self.activations - set(names)
        return self.variant(self.layers - set(names), activations)

    def alone(self, name: str) -> _Variant:
        """With this part quantized and all else in float."""
        return self.variant(self.layers & {name}, self.activations & {name})


def _part(name: str, alone: _Variant, left: _Variant, whole: _Variant) -> Part:
    recovered = _recovered(whole, left)
    return Part(name=name, alone=alone.effect, left_float=left.effect, **recovered)


def _recovered(whole: _Variant, variant: _Variant) -> dict[str, float]:
    """What a variant recovers of the drop of ``whole``, with its interval."""
    names = ("recovered_pp", "recovered_low_pp", "recovered_high_pp")
    return dict(zip(names, difference(variant.right, whole.right), strict=True))


def _ranked(parts: Iterable[Part]) -> tuple[Part, ...]:
    return tuple(sorted(parts, key=lambda part: part.alone.harm, reverse=True))


def _mixed(
    probe: _Probe,
    whole: _Variant,
    alone: dict[str, _Variant],
    left: dict[str, _Variant],
    most: int,
) -> MixedPrecision:
    """The part to leave in float, or a few where one does not recover most of the drop.

    Greedily: what is added to the parts found so far is one of those that recover most by
    themselves. Parts may cover up for each other, so that the most sensitive ones together are
    tried at every step too.
    """
    by_recovery = sorted(left, key=lambda name: left[name].effect.harm)
    by_harm = sorted(alone, key=lambda name: alone[name].effect.harm, reverse=True)
    chosen, best = frozenset(by_recovery[:1]), left[by_recovery[0]]
    drop = whole.effect.drop_pp
    while len(chosen) < most and not advice.is_most(drop - best.effect.drop_pp, drop):
        further = [name for name in by_recovery if name not in chosen][:WIDTH]
        sets = [*(chosen | {name} for name in further), frozenset(by_harm[: len(chosen) + 1])]
        tried = {names: probe.left_float(names) for names in dict.fromkeys(sets)}
        names = min(tried, key=lambda names: tried[names].effect.harm)
        if tried[names].effect.drop_pp >= best.effect.drop_pp:
            break
        chosen, best = names, tried[names]
    by_weights = probe.left_float(chosen, weights_alone=True)
    return MixedPrecision(
        left_float=tuple(name for name in left if name in chosen),
        effect=best.effect,
        by_weights_pp=drop - by_weights.effect.drop_pp,
        **_recovered(whole, best),
    )
