"""Weights alone: which tensors are replaced, and by what."""

from typing import Any

import pytest
import torch
from torch import nn

from qwd.quantize import backend
from qwd.quantize.arithmetic import quantize
from qwd.quantize.schemes import parse_scheme

IMAGES = [torch.zeros(1, 3, 4, 4)]


@pytest.mark.parametrize("name", ["minmax-tensor", "affine-channel", "symmetric-tensor-w4"])
def test_weights_alone_are_replaced_by_the_arithmetic(name: str) -> None:
    scheme = parse_scheme(name)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 6, 2), nn.BatchNorm2d(6))
    made = backend.quantize(network, scheme, IMAGES)
    for index in (0, 1):
        layer: Any = network[index]
        copied: Any = made.converted.network.get_submodule(str(index))
        axis = index if scheme.granularity == "channel" else None
        expected = quantize(layer.weight, kind=scheme.kind, bits=scheme.weight_bits, axis=axis)  # type: ignore[arg-type]
        assert torch.equal(copied.weight, expected.values.float())
        assert torch.equal(copied.bias, layer.bias)
    assert len(made.description.quantized) == 2


def test_attention_and_embeddings_are_weights_and_positions_are_not() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(9, 4)
            self.attention = nn.MultiheadAttention(4, 2)
            self.positions = nn.Parameter(torch.randn(5, 4))

    network = Net()
    made = backend.quantize(network, parse_scheme("minmax-tensor-w4"), IMAGES)
    changed = {
        n
        for n, p in made.converted.network.named_parameters()
        if not torch.equal(p, network.get_parameter(n))
    }
    assert changed == {"embedding.weight", "attention.in_proj_weight", "attention.out_proj.weight"}
