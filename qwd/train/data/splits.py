"""What training, evaluation and the report are given: a data set and its three splits."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from qwd.train.data.augment import Augment


class Split(ABC):
    """Images and labels, read in batches as often as wanted, in any order."""

    labels: Tensor
    """int64 [n], on the CPU"""

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def batches(
        self,
        order: Tensor | None,
        batch_size: int,
        *,
        device: torch.device,
        augment: Augment | None = None,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (x float32 [B, C, H, W], normalised; y int64 [B]) on ``device``.

        ``order``: int64 positions in the split, on the CPU; None is 0 to n-1. ``generator``, on
        the CPU, gives the random numbers of the augmentation: the same on every device.
        """

    @abstractmethod
    def subset(self, positions: Tensor) -> "Split":
        """The images at ``positions``, int64 [k] in this split, in that order; none is copied."""

    @abstractmethod
    def sha256(self) -> str:
        """Hex digest of images, labels and normalisation; the same on every machine."""


@dataclass(frozen=True)
class Data:
    """A data set, ready for training; sizes are those that a model sees."""

    name: str
    train: Split
    validation: Split
    """held out from the training data; everything that selects reads this one"""
    test: Split
    test_name: str
    """``test`` or ``val``, where a folder of images calls its only held-out part so"""
    classes: tuple[str, ...]
    in_channels: int
    image_size: int
    """height and width in pixels"""
    mean: tuple[float, ...]
    """per channel on the scale 0 to 1; empty where the data came normalised"""
    std: tuple[float, ...]
    default_augment: str
    """``none``, ``crop`` or ``crop-flip``"""
    notes: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def sizes(self) -> dict[str, int]:
        """What a model is built for, as `qwd.train.models.build` takes it."""
        return {
            "in_channels": self.in_channels,
            "image_size": self.image_size,
            "num_classes": self.num_classes,
        }


def slices(n: int, batch_size: int, drop_last: bool = False) -> Iterator[slice]:
    """Consecutive slices of ``range(n)``; the last one may be shorter, or is dropped."""
    for start in range(0, n, batch_size):
        if not drop_last or start + batch_size <= n:
            yield slice(start, start + batch_size)
