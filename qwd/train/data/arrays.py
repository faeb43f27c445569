"""Images as bytes, in memory or mapped from a file; a float exists only in a batch."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from qwd.train.data.augment import Augment
from qwd.train.data.splits import Split, slices

RESIDENT_BYTES = 2 << 30
"""Arrays up to this size are copied to a GPU once; larger ones are sent batch by batch."""
CHUNK_BYTES = 1 << 22
"""How much is read at a time where all images are: large enough to be fast, small in memory."""


class Pixels:
    """uint8 images [n, C, H, W] whose white is ``white``, and their copy on a GPU.

    ``images`` may be read-only. Splits of the same images share one `Pixels`.
    """

    def __init__(self, images: np.ndarray, white: int = 255):
        self.images = np.ascontiguousarray(images)  # no copy where it is so already
        self.white = white
        self._resident: dict[torch.device, Tensor] = {}

    def reader(self, rows: Tensor, device: torch.device) -> Callable[[slice], Tensor]:
        """A function from a slice of ``rows`` (int64, CPU) to these images on ``device``."""
        if device.type == "cpu":
            return lambda part: self._gathered(rows[part])
        if self.images.nbytes > RESIDENT_BYTES:
            # From pinned memory the copy runs beside the computation.
            return lambda part: (
                self._gathered(rows[part]).pin_memory().to(device, non_blocking=True)
            )
        resident, rows = self._on(device), rows.to(device)
        return lambda part: resident[rows[part]]

    def chunks(self, rows: Tensor) -> Iterator[np.ndarray]:
        """The images at ``rows`` in order, uint8 [k, C, H, W] at a time."""
        per_image = max(1, math.prod(self.images.shape[1:]))
        for part in slices(len(rows), max(1, CHUNK_BYTES // per_image)):
            yield self.images[rows[part].numpy()]

    def moments(self, rows: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per-channel mean and standard deviation (ddof 0) over ``rows``, on the scale 0 to 1.

        Counts and sums are integers and the one division is correctly rounded, so the figures
        are exact and the same on every machine.
        """
        channels = self.images.shape[1]
        counts = np.zeros((channels, 256), np.int64)
        for chunk in self.chunks(rows):
            for c in range(channels):
                counts[c] += np.bincount(chunk[:, c].ravel(), minlength=256)
        means, deviations = [], []
        for of_value in counts.tolist():
            n = sum(of_value)
            total = sum(value * count for value, count in enumerate(of_value))
            squares = sum(value * value * count for value, count in enumerate(of_value))
            means.append(total / (n * self.white))
            deviations.append(math.sqrt((n * squares - total**2) / (n * self.white) ** 2))
        return tuple(means), tuple(deviations)

    def _gathered(self, rows: Tensor) -> Tensor:
        # Fancy indexing copies: torch never sees memory that it must not write to.
        return torch.from_numpy(self.images[rows.numpy()])

    def _on(self, device: torch.device) -> Tensor:
        if device not in self._resident:
            images = torch.empty(self.images.shape, dtype=torch.uint8, device=device)
            rows = torch.arange(len(images))
            start = 0
            for chunk in self.chunks(rows):
                images[start : start + len(chunk)] = torch.from_numpy(chunk)
                start += len(chunk)
            self._resident[device] = images
        return self._resident[device]


class ArraySplit(Split):
    """The images of ``pixels`` at ``rows``, normalised to (value / white - mean) / std.

    ``labels``: int64 [n] of these rows; ``rows``: int64 [n], None is all of them. ``mean`` and
    ``std`` have an entry per channel of a batch: grey images with three entries become RGB by
    repetition.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: np.ndarray | Tensor,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        rows: np.ndarray | Tensor | None = None,
    ):
        self.pixels = pixels
        self.labels = torch.as_tensor(labels, dtype=torch.int64)
        self.mean = tuple(mean)
        self.std = tuple(std)
        everything = torch.arange(len(pixels.images))
        self.rows = everything if rows is None else torch.as_tensor(rows, dtype=torch.int64)
        self._digest: str | None = None

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
        """See `Split.batches`; augmentation is of the raw image, where zero is black."""
        rows = self.rows if order is None else self.rows[order]
        labels = (self.labels.clone() if order is None else self.labels[order]).to(device)
        factor, shift = self._scaling(device)
        read = self.pixels.reader(rows, device)
        for part in slices(len(rows), batch_size, drop_last):
            images = read(part)
            if augment is not None:
                images = augment(images, generator)
            images = images.expand(-1, len(self.mean), -1, -1)
            x = images.to(torch.float32, memory_format=torch.contiguous_format)
            yield x.mul_(factor).add_(shift), labels[part]

    def subset(self, positions: Tensor) -> "ArraySplit":
        """See `Split.subset`."""
        rows, labels = self.rows[positions], self.labels[positions]
        return ArraySplit(self.pixels, labels, mean=self.mean, std=self.std, rows=rows)

    def sha256(self) -> str:
        """See `Split.sha256`; over the bytes of the images, wherever these are stored."""
        if self._digest is None:
            shape = (len(self), *self.pixels.images.shape[1:])
            digest = hashlib.sha256(f"{shape} {self.pixels.white}".encode())
            for chunk in self.pixels.chunks(self.rows):
                digest.update(chunk.data)
            digest.update(self.labels.numpy().astype("<i8").data)
            digest.update(np.array([self.mean, self.std], "<f8").data)
            self._digest = digest.hexdigest()
        return self._digest

    def _scaling(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Factor and summand of the normalisation: float32 [C, 1, 1]."""
        mean, std = torch.tensor([self.mean, self.std], dtype=torch.float64)[..., None, None]
        factor, shift = 1 / (self.pixels.white * std), -mean / std
        return factor.to(device, torch.float32), shift.to(device, torch.float32)
