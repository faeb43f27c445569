"""The batches: those of the ordinary loop, read once for all replicas of a seed."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from qwd.train.data import ArraySplit
from qwd.train.session import Session

RESIDENT_BYTES = 1 << 30
"""Normalised images up to this size are kept; more are made batch by batch."""


class Feed:
    """Batches for replicas: [R, B, ...], or [B, ...] where all have one seed."""

    def __init__(self, sessions: Sequence[Session]):
        seeds = [session.config.seed for session in sessions]
        self.leaders = {seed: sessions[seeds.index(seed)] for seed in dict.fromkeys(seeds)}
        self.spread = len(self.leaders) > 1
        first = sessions[0]
        self.device = first.device
        places = {seed: place for place, seed in enumerate(self.leaders)}
        self.seed_of = torch.tensor([places[seed] for seed in seeds], device=self.device)
        self._resident = _resident(first)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch; seeds everything at the first one."""
        if self._resident is None:
            yield from self._read(number)
            return
        images, labels = self._resident
        first = next(iter(self.leaders.values()))
        size, steps = first.batch_size, first.steps_per_epoch
        orders = torch.stack([s.order(number)[0][: steps * size] for s in self.leaders.values()])
        places = orders.view(len(orders), steps, size).to(self.device).transpose(0, 1)
        places = places[:, self.seed_of] if self.spread else places[:, 0]
        for rows, labels_of in zip(places.contiguous(), labels[places], strict=True):
            batch = images.index_select(0, rows.flatten())
            yield batch.view(*rows.shape, *images.shape[1:]), labels_of

    def _read(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        for batches in zip(*(s.batches(number) for s in self.leaders.values()), strict=True):
            if self.spread:
                images, labels = (torch.stack(parts) for parts in zip(*batches, strict=True))
                yield images[self.seed_of], labels[self.seed_of]
            else:
                yield batches[0]


def _resident(session: Session) -> tuple[Tensor, Tensor] | None:
    """All training images, normalised, where that is what batches consist of."""
    split = session.data.train
    if session.augment is not None or not isinstance(split, ArraySplit):
        return None
    values = len(split) * session.data.in_channels * session.data.image_size**2
    if 4 * values > RESIDENT_BYTES:
        return None
    return next(iter(split.batches(None, len(split), device=session.device)))
