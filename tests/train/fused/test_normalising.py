"""Normalisation of all replicas gives each of them what it gives one alone."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from qwd.train.fused.normalising import Normalising

WIDE = {2: (12, 3), 3: (12, 3, 5), 4: (12, 3, 4, 4)}
"""shapes of batches of 3 channels, by dimensions"""


class Frozen(nn.BatchNorm1d):
    """Normalises by its running statistics, also in training."""

    def forward(self, input: Tensor) -> Tensor:
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias)


NORMS: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "of rows": (2, lambda: nn.BatchNorm1d(3)),
    "of sequences": (3, lambda: nn.BatchNorm1d(3)),
    "of images": (4, lambda: nn.BatchNorm2d(3, momentum=0.3, eps=1e-2)),
    "without weights": (4, lambda: nn.BatchNorm2d(3, affine=False)),
    "without statistics": (4, lambda: nn.BatchNorm2d(3, track_running_stats=False)),
    "by its statistics": (2, lambda: Frozen(3)),
    "layers": (4, lambda: nn.LayerNorm(4)),
    "groups": (4, lambda: nn.GroupNorm(3, 3)),
    "instances": (4, lambda: nn.InstanceNorm2d(3, affine=True)),
}


def differentiated(
    network: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor
) -> Any:
    """Gradients of a weighted sum of squared outputs, those of x too, and buffers afterwards."""

    def of(parameters: Any, x: Tensor, buffers: Any) -> Any:
        after = {name: buffer.clone() for name, buffer in buffers.items()}
        outputs = functional_call(network, (parameters, after), (x,))
        weights = torch.linspace(-1, 2, outputs.numel()).view(outputs.shape)
        return (outputs.double().square() * weights).sum(), after

    return grad(of, argnums=(0, 1), has_aux=True)(parameters, x, buffers)


@pytest.mark.parametrize("shared", [True, False], ids=["one batch", "a batch each"])
@pytest.mark.parametrize(("dims", "made"), NORMS.values(), ids=NORMS)
def test_replicas_are_normalised_as_alone(
    dims: int, made: Callable[[], nn.Module], shared: bool
) -> None:
    torch.manual_seed(0)
    networks = [made().double() for _ in range(2)]
    for network in networks:
        for parameter in network.parameters():
            nn.init.normal_(parameter)
    batches = torch.randn(2, *WIDE[dims], dtype=torch.float64)
    parameters, buffers = stack_module_state(networks)  # type: ignore[arg-type]
    x, dim = (batches[0], None) if shared else (batches, 0)
    with Normalising():
        found = vmap(differentiated, in_dims=(None, 0, 0, dim))(networks[0], parameters, buffers, x)
    for r, network in enumerate(networks):
        own = dict(network.named_parameters()), dict(network.named_buffers())
        expected = differentiated(network, *own, batches[0 if shared else r])
        for one, right in zip(tree_leaves(found), tree_leaves(expected), strict=True):
            assert torch.allclose(one[r].double(), right.double(), rtol=1e-10, atol=1e-12)
