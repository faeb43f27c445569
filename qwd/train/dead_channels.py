"""ReLU channels that have died: zero for every image and position, so that nothing trains them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

RELUS = (nn.ReLU, nn.ReLU6)


class DeadChannels:
    """Counts dead channels in the forward passes within `watching`.

    ReLUs are found as modules (nn.ReLU, nn.ReLU6 and what derives from them); those called as
    functions are not seen. Channels are dimension 1 of [N, F] and [N, C, H, W], the last one of
    tokens [N, T, F].
    """

    def __init__(self, model: nn.Module):
        self.relus = {n: m for n, m in model.named_modules() if isinstance(m, RELUS)}
        self.alive: dict[tuple[str, int], Tensor] = {}
        """of each ReLU and number of channels, bool [channels]"""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Start counting anew, and look at what the ReLUs return until the end of the block.

        Outputs are only read, as each call returns them: a later one in place changes nothing.
        """
        self.alive = {}
        hooks = [m.register_forward_hook(self._hook(n)) for n, m in self.relus.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def counts(self) -> dict[str, tuple[int, int]]:
        """Of each ReLU that was called: how many channels are dead, and how many there are.

        A channel is dead where it was zero in all calls. Calls of one ReLU on different numbers of
        channels, as in torchvision's bottlenecks, are counted side by side.
        """
        if not self.alive:
            return {}
        alive = torch.cat(list(self.alive.values())).cpu().split([n for _, n in self.alive])
        found: dict[str, tuple[int, int]] = {}
        for (name, channels), mask in zip(self.alive, alive, strict=True):
            dead, of = found.get(name, (0, 0))
            found[name] = dead + channels - int(mask.sum()), of + channels
        return found

    def _hook(self, name: str) -> Any:
        @torch.no_grad()
        def look(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if output.ndim < 2 or not output.numel():
                return
            channel = 2 if output.ndim == 3 else 1
            positions = [d for d in range(output.ndim) if d != channel]
            # Nothing is negative, so the sum is 0 where all are. amax is slower in most layouts.
            alive = output.sum(positions) != 0
            key = name, alive.numel()
            self.alive[key] = self.alive[key] | alive if key in self.alive else alive

        return look
