"""What comes of trying variants of the quantization, as plain data: sensitivity and remedies.

Variants are compared on images of the validation split: whatever is chosen by them is not chosen
on the images that the report's accuracies are measured on.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a variant does to the predictions, against the same network in float."""

    accuracy: float
    drop_pp: float
    """100 (float accuracy - accuracy)"""
    drop_low_pp: float
    """lower end of the drop's 95 % interval, paired by image"""
    drop_high_pp: float
    flip_n: int
    flip_rate: float
    """share of images whose predicted class changes"""
    kl: float
    """mean KL(float || variant) of the softmax outputs, in nats"""

    @property
    def harm(self) -> tuple[float, float, float]:
        """Ascending with the harm; KL tells variants apart where no class flips."""
        return self.drop_pp, self.flip_rate, self.kl


@dataclass(frozen=True, kw_only=True)
class Part:
    """A layer, its weights and its output, or an activation that is no layer's output."""

    name: str
    alone: Effect
    """it is quantized, all else is float"""
    left_float: Effect
    """it is float, all else is quantized"""
    recovered_pp: float
    """drop with everything quantized less that of ``left_float``"""
    recovered_low_pp: float
    """lower end of its 95 % interval, paired by image"""
    recovered_high_pp: float


@dataclass(frozen=True, kw_only=True)
class MixedPrecision:
    """The parts to leave in float, found by trying; all others are quantized."""

    left_float: tuple[str, ...]
    effect: Effect
    recovered_pp: float
    recovered_low_pp: float
    recovered_high_pp: float
    by_weights_pp: float
    """what is recovered where their weights alone are float and all activations quantized"""


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Which parts of a network lose accuracy under a scheme."""

    scheme: str
    backend: str
    observer: str
    split: str
    n: int
    """images"""
    float_accuracy: float
    quantized: Effect
    """everything quantized"""
    weights_only: Effect
    activations_only: Effect
    layers: tuple[Part, ...]
    """the most sensitive first: by drop, flip rate and KL of the layer alone"""
    activations: tuple[Part, ...]
    """activations that are no layer's output, such as the input and sums, in the same order"""
    mixed: MixedPrecision | None
    """None where the drop is within what the images can show"""
    advice: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A way to lose less without training, tried on the backend of its scheme."""

    name: str
    scheme: str
    backend: str
    engine: str | None
    observer: str | None
    failure: str | None
    """why it could not be tried"""
    effect: Effect | None = None
    """None where it could not be tried"""
    recovered_pp: float | None = None
    """of the drop of the scheme as it is; None for that scheme itself"""
    recovered_low_pp: float | None = None
    """lower end of its 95 % interval, paired by image"""
    recovered_high_pp: float | None = None


@dataclass(frozen=True, kw_only=True)
class Remedies:
    """What was tried where a scheme loses more than a stated limit."""

    limit_pp: float
    split: str
    n: int
    """images"""
    float_accuracy: float
    before: Remedy
    """the scheme as it is"""
    entries: tuple[Remedy, ...]
    """empty where the drop is within the limit"""
    chosen: str | None
    """the one of the highest accuracy; None where none is higher than before"""
    test_split: str | None
    test_accuracy: float | None
    """of the chosen one, read once; None where there is none"""
    test_drop_pp: float | None
    hint: str | None
    """a command that is not executed: quantization-aware training that starts from the run"""
