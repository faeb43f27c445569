"""What a report says of single tensors, as plain data."""

from dataclasses import dataclass

from qwd.quantize.figures import WeightFigures


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelReport:
    """The output channels of one weight in short; see `qwd.quantize.channels`.

    Ranges of single channels are not kept: a large model has millions.
    """

    axis: int
    channels: int
    range_median: float | None
    spread: float | None
    """widest range / median of the ranges"""
    dead: int
    """channels whose weights are all zero"""
    dead_channels: tuple[int, ...]
    """the first 20 of them"""
    floored: dict[str, int]
    """channels whose scale is below the smallest one of a backend"""
    sqnr_db: float | None
    """with a scale per channel, minmax-channel-w8"""
    sqnr_expected_db: float | None
    gain_db: float | None
    """over one scale for the tensor"""


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorGroup:
    """Tensors that are no weights, of one kind: biases, norms, statistics."""

    kind: str
    tensors: int
    elements: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorReport:
    """One weight tensor as stored, and after folding the BatchNorm behind it."""

    name: str
    figures: WeightFigures
    folded: WeightFigures | None
    kind: str | None = None
    """convolution, depthwise, grouped, transposed, linear, embedding, position or other"""
    norm: str | None = None
    """the BatchNorm that is folded into it"""
    channels: ChannelReport | None = None
    folded_channels: ChannelReport | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeployedReport:
    """One kernel that several tensors become when the model is deployed."""

    name: str
    sources: tuple[str, ...]
    figures: WeightFigures
    channels: ChannelReport | None = None
