"""What wins back accuracy without training: tried where a scheme loses more than a stated limit.

Remedies are chosen on the validation split, each alone on the backend of the scheme, then those
that helped together. The test split is read once, for the one that was chosen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from qwd.errors import VerificationError
from qwd.quantize.backend import NotQuantizableError, QuantizedNetwork, quantize
from qwd.quantize.correction import biases_corrected, weights_clipped
from qwd.quantize.schemes import CLIPS, Clip, Scheme
from qwd.report.function import finite
from qwd.report.paired import difference, effect, right
from qwd.report.variants import Remedies, Remedy
from qwd.report.watching import Watcher
from qwd.train.data import Data, Split
from qwd.train.evaluation import accuracy, logits

MOST_TRIALS = 6
"""the scheme as it is, four remedies alone, and those that helped together"""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One remedy, or several together."""

    per_channel: bool = False
    clip: Clip = "none"
    bias: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """The remedies in it, in the order in which they are applied."""
        every = {
            "per-channel scales": self.per_channel,
            f"clipping ({self.clip})": self.clip != "none",
            "bias correction": self.bias,
        }
        return tuple(name for name, used in every.items() if used)

    @property
    def name(self) -> str:
        """What reports call it."""
        return " + ".join(self.parts) or "none"

    def applied(
        self, network: nn.Module, scheme: Scheme, calibration: Sequence[Tensor]
    ) -> tuple[nn.Module, Scheme]:
        """The float network and the scheme to quantize it by; raises as bias correction does."""
        if self.per_channel:
            scheme = replace(scheme, granularity="channel")
        if self.clip != "none":
            network = weights_clipped(network, scheme, self.clip)
        if self.bias:
            network = biases_corrected(network, scheme, calibration)
        return network, scheme


def remedies(
    network: nn.Module,
    scheme: Scheme,
    data: Data,
    calibration: Sequence[Tensor],
    *,
    limit_pp: float,
    test_accuracy: float,
    device: torch.device,
    watcher: Watcher,
) -> tuple[Remedies, list[str]]:
    """Try them on a deployed float ``network`` if ``scheme`` loses more than ``limit_pp``.

    Also returns what the backends have to say. ``calibration`` are batches of training images
    [N, C, H, W]; ``test_accuracy`` is that of the network in float on the test split. Raises
    NotQuantizableError where the scheme as it is cannot be run.
    """
    watcher.begins("fix", 1, MOST_TRIALS - 1, len(data.validation))
    trials = _Trials(network, data.validation, calibration, device, watcher)
    before = trials.run(Recipe(), scheme)
    if before.effect is None:
        raise NotQuantizableError(f"{scheme.name}: {before.failure}")
    entries: dict[Recipe, Remedy] = {}
    if before.effect.drop_pp > limit_pp:
        entries = {recipe: trials.run(recipe, scheme) for recipe in _single(scheme)}
        together = _together(_helpful(entries))
        if together not in (*entries, Recipe()):
            entries[together] = trials.run(together, scheme)
    chosen = next(iter(_helpful(entries)), None)
    found = Remedies(
        limit_pp=limit_pp,
        split="validation",
        n=len(data.validation),
        float_accuracy=accuracy(trials.reference, data.validation.labels),
        before=before,
        entries=tuple(entries.values()),
        chosen=None,
        test_split=None,
        test_accuracy=None,
        test_drop_pp=None,
        hint=None,
    )
    if chosen is not None:
        measured = accuracy(trials.outputs(chosen, data.test), data.test.labels)
        found = replace(
            found,
            chosen=chosen.name,
            test_split=data.test_name,
            test_accuracy=measured,
            test_drop_pp=100 * (test_accuracy - measured),
        )
    return found, trials.warnings


class _Trials:
    """Quantizes a network in several ways and compares each with the network in float."""

    def __init__(
        self,
        network: nn.Module,
        split: Split,
        calibration: Sequence[Tensor],
        device: torch.device,
        watcher: Watcher,
    ):
        self.network, self.split, self.calibration = network, split, calibration
        self.device, self.watcher = device, watcher
        self.reference = logits(network.to(device), split, device)
        network.cpu()
        self.before: Tensor | None = None
        """of the scheme as it is, which images are classified rightly, bool [n]"""
        self.made: dict[Recipe, QuantizedNetwork] = {}
        self.warnings: list[str] = []

    def run(self, recipe: Recipe, scheme: Scheme) -> Remedy:
        """Try a recipe; the first one is what the others are compared with."""
        made = None
        try:
            network, scheme = recipe.applied(self.network, scheme, self.calibration)
            made = self.made[recipe] = quantize(network, scheme, self.calibration)
            outputs = self.outputs(recipe, self.split)
            failure = None if finite(outputs) else "the quantized outputs are not finite"
        except (NotQuantizableError, VerificationError) as error:
            outputs, failure = None, str(error)
        self.watcher.evaluated()
        entry = Remedy(
            name=recipe.name,
            scheme=scheme.name,
            backend=scheme.backend,
            engine=made.description.engine if made else None,
            observer=made.description.observer if made else None,
            failure=failure,
        )
        if made is None or outputs is None or failure is not None:
            return entry
        self.warnings += [w for w in made.description.warnings if w not in self.warnings]
        labels = self.split.labels
        now = right(outputs, labels)
        if self.before is None:
            self.before = now
            return replace(entry, effect=effect(self.reference, outputs, labels))
        gain, low, high = difference(now, self.before)
        return replace(
            entry,
            effect=effect(self.reference, outputs, labels),
            recovered_pp=gain,
            recovered_low_pp=low,
            recovered_high_pp=high,
        )

    def outputs(self, recipe: Recipe, split: Split) -> Tensor:
        """Of the network that a recipe made: float32 [n, classes]."""
        made = self.made[recipe]
        device = made.backend.device or self.device
        return logits(made.to(device), split, device)


def _single(scheme: Scheme) -> Iterator[Recipe]:
    """The remedies that the scheme does not have already."""
    if scheme.granularity == "tensor":
        yield Recipe(per_channel=True)
    if scheme.clip == "none":
        yield from (Recipe(clip=clip) for clip in CLIPS if clip != "none")
    yield Recipe(bias=True)


def _helpful(entries: dict[Recipe, Remedy]) -> list[Recipe]:
    """Those that lose less than the scheme as it is, the best first; of equals the simplest."""
    ranks = {
        recipe: (entry.effect.drop_pp, len(recipe.parts), entry.effect.harm)
        for recipe, entry in entries.items()
        if entry.effect is not None and (entry.recovered_pp or 0) > 0
    }
    return sorted(ranks, key=ranks.__getitem__)


def _together(helpful: Sequence[Recipe]) -> Recipe:
    """All that helped; of two ways to clip, the better one."""
    clips: list[Clip] = [recipe.clip for recipe in helpful if recipe.clip != "none"]
    return Recipe(
        per_channel=any(recipe.per_channel for recipe in helpful),
        clip=clips[0] if clips else "none",
        bias=any(recipe.bias for recipe in helpful),
    )
