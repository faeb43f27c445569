"""From raw images and labels to data for a model: size, channels, normalisation, validation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from qwd.errors import UsageError
from qwd.train.data.arrays import ArraySplit, Pixels
from qwd.train.data.resize import squares
from qwd.train.data.splits import Data
from qwd.train.data.stratify import held_out

Numbers = Sequence[float]


@dataclass(frozen=True, eq=False)
class Part:
    """Images uint8 [n, C, H, W], in memory or memory-mapped, and their labels int64 [n]."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """A data set as it is stored; the images of all parts have one size."""

    train: Part
    test: Part
    validation: Part | None = None
    """None: a stratified tenth of the training images"""
    classes: tuple[str, ...]
    white: int = 255
    """the value of a white pixel"""
    default_augment: str = "none"
    test_name: str = "test"
    notes: tuple[str, ...] = ()


def as_data(
    name: str,
    raw: ImageSet,
    *,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    image_size: int | None = None,
    channels: int | None = None,
) -> Data:
    """The data for a model that wants images of ``image_size`` in ``channels`` channels.

    ``mean`` and ``std`` are on the scale 0 to 1, one for all channels or one each; None: those of
    the training images. Raises UsageError where sizes, channels or numbers do not fit.
    """
    raw = _resized(name, raw, image_size)
    pixels, labels = Pixels(raw.train.images, raw.white), raw.train.labels
    in_channels = channels_given(name, raw.train.images.shape[1], channels)
    kept, held = held_out(labels) if raw.validation is None else (np.arange(len(labels)), None)
    notes = raw.notes
    if mean is None and std is None:
        mean, std = pixels.moments(torch.from_numpy(kept))
        # A channel of a single value has no deviation: it is shifted, not scaled.
        std = tuple(s or 1.0 for s in std)
        shown = f"mean {_shown(mean)}, std {_shown(std)}"
        notes += (f"normalisation: {shown}, computed from the training images",)
    mean, std = _per_channel("--mean", mean, in_channels), _per_channel("--std", std, in_channels)
    if min(std) <= 0:
        raise UsageError(f"--std {_shown(std)}: expected numbers greater than 0")

    def split(pixels: Pixels, labels: np.ndarray, rows: np.ndarray | None = None) -> ArraySplit:
        chosen = labels if rows is None else labels[rows]
        return ArraySplit(pixels, chosen, mean=mean, std=std, rows=rows)

    def other(part: Part) -> ArraySplit:
        return split(Pixels(part.images, raw.white), part.labels)

    return Data(
        name=name,
        train=split(pixels, labels, kept),
        validation=split(pixels, labels, held) if raw.validation is None else other(raw.validation),
        test=other(raw.test),
        test_name=raw.test_name,
        classes=raw.classes,
        in_channels=in_channels,
        image_size=raw.train.images.shape[2],
        mean=mean,
        std=std,
        default_augment=raw.default_augment,
        notes=notes,
    )


def channels_given(name: str, stored: int, wanted: int | None) -> int:
    """How many channels a batch has: as stored, or ``wanted`` where grey can be repeated.

    Raises UsageError where ``stored`` channels cannot become ``wanted`` ones.
    """
    if wanted in (None, stored) or stored == 1:
        return wanted or stored
    raise UsageError(f"--data {name}: has {stored} channels, the model takes {wanted}")


def _resized(name: str, raw: ImageSet, size: int | None) -> ImageSet:
    height, width = raw.train.images.shape[2:]
    if size is None and height != width:
        raise UsageError(
            f"--data {name}: images are {width}x{height} and models take squares: "
            f"choose one, for example --image-size {min(height, width)}"
        )
    if size is None or (height, width) == (size, size):
        return raw
    # Interpolation needs all 256 levels, of which digits use 17.
    levels = np.rint(np.arange(256).clip(max=raw.white) * (255 / raw.white)).astype(np.uint8)

    def part(old: Part) -> Part:
        return Part(squares(levels[old.images], size), old.labels)

    validation = part(raw.validation) if raw.validation else None
    train, test = part(raw.train), part(raw.test)
    return replace(raw, train=train, validation=validation, test=test, white=255)


def _per_channel(option: str, numbers: Numbers | None, channels: int) -> tuple[float, ...]:
    if numbers is None:
        raise UsageError(f"{option} is missing: --mean and --std go together")
    if len(numbers) not in (1, channels):
        expected = "1 number" if channels == 1 else f"1 number, or {channels}, one per channel"
        raise UsageError(f"{option} {_shown(numbers)}: has {len(numbers)}, expected {expected}")
    return tuple(float(x) for x in numbers) * (1 if len(numbers) == channels else channels)


def _shown(numbers: Numbers) -> str:
    return ", ".join(f"{x:.4g}" for x in numbers)
