"""The check that every model passes before it is used: two black images give two rows of logits."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from qwd.errors import UsageError, reason

BATCH = 2


def run(name: str, model: nn.Module, sizes: Mapping[str, int]) -> None:
    """Check that ``model`` maps [2, C, H, H] to floats [2, num_classes] in evaluation mode.

    Weights, buffers, the modes of all modules and torch's generator are left as they were; lazy
    modules take their shapes here. Raises UsageError which says what came out.
    """
    image = [sizes["in_channels"], sizes["image_size"], sizes["image_size"]]
    expected = [BATCH, sizes["num_classes"]]
    given = f"{BATCH} images of {image}"
    try:
        output = _output(model, torch.zeros(BATCH, *image))
    except Exception as error:
        # A model of the user's may fail in any way, and torchvision's do on small images.
        raise UsageError(f"--model {name}: fails on {given}: {reason(error, 300)}") from error
    if not isinstance(output, Tensor):
        found = type(output).__name__
    elif list(output.shape) != expected:
        found = f"a tensor of shape {list(output.shape)}"
    elif not output.is_floating_point():
        found = f"a tensor of {output.dtype}"
    else:
        return
    raise UsageError(
        f"--model {name}: returns {found} for {given}; expected a float tensor "
        f"of shape {expected}, a logit for each class"
    )


def _output(model: nn.Module, images: Tensor) -> Any:
    modes = {module: module.training for module in model.modules()}
    # The forward pass sees copies of the buffers, so that what it writes there is lost.
    buffers = {n: b.clone() for n, b in model.named_buffers() if not is_lazy(b)}
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            return functional_call(model.eval(), buffers, (images,))
    finally:
        for module, training in modes.items():
            module.training = training
