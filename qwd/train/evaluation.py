"""What a network says about a split, in evaluation mode."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qwd.train.data import Split
from qwd.train.devices import without_tf32

BATCH = 500
"""Images per forward pass: large enough to be fast, small enough for 224 px images."""


@torch.no_grad()
def logits(network: nn.Module, split: Split, device: torch.device) -> Tensor:
    """Outputs on every image of the split in order: float32 [n, classes], on the CPU.

    The network's training mode is restored afterwards.
    """
    training = network.training
    network.train(False)
    try:
        # A GPU's float is the CPU's then, against which int8 kernels are compared.
        with without_tf32():
            batches = split.batches(None, BATCH, device=device)
            outputs = [network(images).float().cpu() for images, _ in batches]
    finally:
        network.train(training)
    return torch.cat(outputs)


def loss_and_accuracy(
    network: nn.Module, split: Split, device: torch.device
) -> tuple[float, float]:
    """Mean cross-entropy in nats, and the share of images classified rightly."""
    outputs = logits(network, split, device)
    loss = F.cross_entropy(outputs, split.labels)
    return loss.item(), accuracy(outputs, split.labels)


def accuracy(outputs: Tensor, labels: Tensor) -> float:
    """Share of rows [n, classes] whose largest entry stands at the label [n]."""
    return (outputs.argmax(dim=1) == labels).double().mean().item()
