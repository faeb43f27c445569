"""Random crops and flips of a whole batch, on its device.

The customary augmentation of small natural images (He et al. 2016, section 4.2): pad by 4 pixels,
cut a window of the old size at random, mirror half of the windows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from qwd.errors import UsageError
from qwd.registry import suggestion


@dataclass(frozen=True)
class Augment:
    """A random crop of the image padded with zeros, then a mirror image in half of the cases."""

    padding: int
    """pixels on every side"""
    flip: bool

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augmented images [B, C, H, W], of the dtype and on the device of ``images``.

        Random numbers come from ``generator`` on the CPU, so that a seed gives the same crops on
        every device. Zero is black for raw images, and the mean for normalised ones.
        """
        n, channels, height, width = images.shape
        shifts = 2 * self.padding + 1
        drawn = torch.stack(
            [
                torch.randint(shifts, (n,), generator=generator),
                torch.randint(shifts, (n,), generator=generator),
                torch.randint(1 + self.flip, (n,), generator=generator),
            ]
        )
        top, left, mirrored = drawn.to(images.device)[..., None]
        padded = F.pad(images, [self.padding] * 4)
        rows = top + torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device)
        columns = left + torch.where(mirrored == 1, width - 1 - columns, columns)
        # One gather does both: where each output pixel lies in the flattened padded image.
        source = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).flatten(1)
        source = source[:, None, :].expand(-1, channels, -1)
        return padded.flatten(2).gather(2, source).view_as(images)


AUGMENTATIONS = {
    "none": None,
    "crop": Augment(padding=4, flip=False),
    "crop-flip": Augment(padding=4, flip=True),
}


def augmentation(name: str) -> Augment | None:
    """The augmentation ``none`` (that is None), ``crop`` or ``crop-flip``; UsageError otherwise."""
    if name not in AUGMENTATIONS:
        known = suggestion(name, AUGMENTATIONS)
        raise UsageError(f"--augment {name!r}: no such augmentation: {known}")
    return AUGMENTATIONS[name]
