"""The models: built-in ones by name, torchvision's, and the user's own.

============================  ==================================================
`build`                       a checked model from a name
`channels_needed`             the channels a model insists on
`info`                        the size and source of a built-in model
`external`                    ``torchvision:NAME`` and ``package.module:callable``
`trial`                       the check that every model passes
`described`, `ModelInfo`      how a builder states its size and source
============================  ==================================================

Every builder takes ``in_channels``, ``image_size`` and ``num_classes`` by keyword and returns an
nn.Module that maps images [N, in_channels, image_size, image_size] to logits [N, num_classes].
A module with a method ``deploy_form()`` stands for several layers that deploy as one: it may be
replaced by the module that the method returns.

Importing this package does not import torch.
"""

from typing import TYPE_CHECKING

from qwd.errors import UsageError
from qwd.registry import MODELS
from qwd.train.models.info import ModelInfo, described

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TORCHVISION", "ModelInfo", "build", "channels_needed", "described", "info"]

TORCHVISION = "torchvision:"


def build(name: str, *, in_channels: int, image_size: int, num_classes: int) -> "nn.Module":
    """A freshly initialized model that maps [N, C, H, H] to [N, num_classes], on the CPU.

    ``name`` is a registered name, ``torchvision:NAME`` or ``package.module:callable``. The weights
    follow from torch's global generator. Raises UsageError where the name is unknown, the model
    cannot be built for these sizes, or a trial batch does not give such an output.
    """
    from qwd.train.models import external, trial

    sizes = {"in_channels": in_channels, "image_size": image_size, "num_classes": num_classes}
    needed = channels_needed(name)
    if needed not in (None, in_channels):
        raise UsageError(f"--model {name}: takes {needed} channels, the data has {in_channels}")
    if name.startswith(TORCHVISION):
        builder = external.from_torchvision(name.removeprefix(TORCHVISION))
    elif ":" in name:
        builder = external.from_path(name)
    else:
        builder = MODELS.get(name)
    model = external.called(name, builder, sizes)
    trial.run(name, model, sizes)
    return model


def channels_needed(name: str) -> int | None:
    """How many channels the images must have for this model; None where any number will do."""
    return 3 if name.startswith(TORCHVISION) else None


def info(name: str) -> ModelInfo | None:
    """What the builder called ``name`` states of itself; None where it states nothing.

    Raises UsageError for a name that is not registered.
    """
    return getattr(MODELS.get(name), "info", None)
