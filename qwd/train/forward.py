"""The forward pass of a training step, in the memory format a CPU is fastest with, or compiled."""

import copy
import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qwd.errors import reason
from qwd.train.compiler import DETERMINISTIC, obstacle_to_compiling, quietly
from qwd.train.models.known import known

LEAST = 16
"""pixels a side of images whose channels are put last; below, little is to be gained"""
KINDS = 256
"""of trainings that a process may compile; torch gives up after 8"""


def memory_format(network: nn.Module, device: torch.device, image_size: int) -> torch.memory_format:
    """How batches lie in memory while ``network`` trains; their values are the same.

    `torch.channels_last`, [B, H, W, C], for convolutions on a CPU, which are 1.1 to 1.6 times as
    fast then; sums are rounded in another order. It follows from the settings alone, so that a run
    repeats bitwise. Someone else's code may take views that this order does not allow.
    """
    convolves = any(isinstance(module, nn.Conv2d) for module in network.modules())
    if device.type == "cpu" and image_size >= LEAST and convolves and known(network):
        return torch.channels_last
    return torch.preserve_format


class Forward:
    """Outputs and loss of a batch, in bfloat16 where ``amp``."""

    def __init__(self, model: nn.Module, format: torch.memory_format, amp: bool):
        self.model = model
        self.format = format
        self.amp = amp
        self.compiled = False
        self._compute: Any = outputs_and_loss

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, classes] and the mean cross-entropy [] in nats, of images [B, C, H, W]."""
        return self._compute(self.model, images.to(memory_format=self.format), labels, self.amp)

    def compile(self, images: Tensor, labels: Tensor) -> str | None:
        """Compile it for batches like this one; where that cannot be done, why not.

        A copy of the model is what it is tried on. Dropout draws the numbers of the plain pass.
        """
        if (lacks := obstacle_to_compiling(images.device)) is not None:
            return lacks
        try:
            with quietly():
                compiled = _compiler()
                model = copy.deepcopy(self.model).train()
                given = images.to(memory_format=self.format)
                compiled(model, given, labels, self.amp)[1].backward()
        except Exception as error:  # of a compiler that is broken, or of a model of anyone's
            return reason(error)
        self.compiled, self._compute = True, compiled
        return None


def uncompiled(why: str) -> str:
    """What a user is told where a step is not compiled."""
    return f"--compile: steps run uncompiled: {why}"


def precision(device: torch.device, amp: bool) -> AbstractContextManager[Any]:
    """What a forward pass computes in: that of the weights, or where ``amp`` bfloat16 autocast.

    Whatever the caller computes in, who may have an autocast of their own.
    """
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, enabled=amp)


def loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """What is minimised, decay aside: the mean cross-entropy of a batch, in nats."""
    return F.cross_entropy(outputs, labels)


def outputs_and_loss(
    model: nn.Module, images: Tensor, labels: Tensor, amp: bool
) -> tuple[Tensor, Tensor]:
    """See `Forward`."""
    with precision(images.device, amp):
        outputs = model(images)
        return outputs, loss(outputs, labels)


@functools.cache
def _compiler() -> Any:
    """Compiled once for all networks of a kind that a process trains."""
    # In this process: the one that compiles may be killed at any time, and leave none behind.
    options: dict[str, Any] = {"fallback_random": True, "compile_threads": 1}
    compiled = torch.compile(outputs_and_loss, dynamic=False, options=DETERMINISTIC | options)

    def call(*given: Any) -> tuple[Tensor, Tensor]:
        with torch._dynamo.config.patch(recompile_limit=KINDS, accumulated_recompile_limit=KINDS):
            return compiled(*given)

    return call
