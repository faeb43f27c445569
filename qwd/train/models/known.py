"""Whose code a model is."""

from torch import nn

KNOWN = ("torch", "torchvision", "qwd")
"""packages whose modules compute the same operations whenever they are called"""


def known(network: nn.Module) -> bool:
    """Whether a network computes the same operations at every call: no code but known modules'."""
    return all(
        type(module).__module__.partition(".")[0] in KNOWN
        and not module._forward_hooks
        and not module._forward_pre_hooks
        for module in network.modules()
    )
