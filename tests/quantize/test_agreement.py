"""Three backends that know nothing of each other compute the same int8 network.

Every built-in convolutional model is trained on CIFAR-10 (JPEG) at 16 x 16 pixels until it tells
four of ten classes, so that there are margins to keep or to lose. Then BatchNorm's statistics are
measured anew over training images. The 10,000 test images are real ones.
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwd.quantize.backend import quantize
from qwd.quantize.folding import deploy
from qwd.quantize.schemes import parse_scheme
from qwd.registry import MODELS
from qwd.train.data import Data, load
from qwd.train.evaluation import accuracy, logits
from qwd.train.models import build
from tests.commands import cifar_folder

SCHEMES = ("simulated-static", "ao-static", "onnx-static")
SIZE, CLASSES = 16, 10
STEPS, BATCH = 150, 64
DEEP = {"resnet32": 300, "resnet44": 900, "resnet56": 1200}
"""More steps, for networks that learn more slowly."""

ACCURACY_PP = 0.2
SAME_CLASS = 0.99
DEEPEST = {"resnet44": 0.98, "resnet56": 0.98}
"""Codes that one backend rounds the other way, at ties, multiply from layer to layer, and what
minutes of training leave between classes is little: a few predictions in a hundred change."""
NEARER = 0.7
"""times the distance to the network in float, the outputs of two backends may be apart; grids in
other places, or twice as coarse, make it one and more"""

CPU = torch.device("cpu")


def convolutional() -> list[Any]:
    """Every built-in model with 2-d convolutions that has no attention."""
    names = [name for name in MODELS.names() if MODELS.ships(name) and _is_convolutional(name)]
    return [pytest.param(n, marks=pytest.mark.long if n in DEEP else ()) for n in names]


def _is_convolutional(name: str) -> bool:
    kinds = [type(m) for m in build(name, in_channels=3, image_size=SIZE, num_classes=2).modules()]
    attends = any("attention" in kind.__name__.lower() for kind in kinds)
    return nn.Conv2d in kinds and not attends


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Data:
    """10,000 test images and 4,500 to train on; skips without the archive."""
    folder: Path = cifar_folder(tmp_path_factory.mktemp("cifar"), train=500, test=1000)
    return load(f"imagefolder:{folder}", image_size=SIZE)


def batches(data: Data, n: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """``n`` training images in an order of their own, over and over if there are fewer."""
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(data.train), generator=generator) for _ in range(n // 4000 + 1)]
    return iter(data.train.batches(torch.cat(orders)[:n], size, device=CPU))


def trained(name: str, data: Data) -> nn.Module:
    """The deployed form of a model after a short training."""
    torch.manual_seed(0)
    steps = DEEP.get(name, STEPS)
    network = build(name, **data.sizes)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    network.train()
    for images, labels in batches(data, steps * BATCH, BATCH):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
        schedule.step()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean of what follows
    with torch.no_grad():
        for images, _ in batches(data, 1000, 250):
            network(images)
    return deploy(network.eval()).module


def distance(outputs: Tensor, others: Tensor) -> float:
    """Root of the mean squared difference."""
    return (outputs - others).square().mean().sqrt().item()


@pytest.mark.parametrize("name", convolutional())
def test_simulated_ao_and_onnx_agree(name: str, data: Data) -> None:
    network, labels = trained(name, data), data.test.labels
    assert len(labels) == 10_000
    calibration = [images for images, _ in batches(data, 256, 64)]
    reference = logits(network, data.test, CPU)
    outputs = {}
    for scheme in SCHEMES:
        made = quantize(network, parse_scheme(scheme), calibration)
        assert made.description.left_float == ()
        assert made.description.activation_bits == 8
        outputs[scheme] = logits(made, data.test, CPU)
    assert accuracy(reference, labels) > 2 / CLASSES
    for one, other in combinations(SCHEMES, 2):
        a, b = outputs[one], outputs[other]
        pair = f"{name}: {one}, {other}"
        apart_pp = 100 * abs(accuracy(a, labels) - accuracy(b, labels))
        assert apart_pp <= ACCURACY_PP, pair
        same = (a.argmax(dim=1) == b.argmax(dim=1)).double().mean().item()
        assert same >= DEEPEST.get(name, SAME_CLASS), pair
        lost = min(distance(reference, a), distance(reference, b))
        assert distance(a, b) < NEARER * lost, pair
