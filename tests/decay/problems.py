"""Small problems that decay is tried on."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qwd import decay
from qwd.decay import Form

Batch = Callable[[int], Tensor]


def network(seed: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).to(dtype)


def trajectory(model: nn.Module, optimizer: Optimizer, seed: int, steps: int = 6) -> list[Tensor]:
    """The parameters after some steps on random batches."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    for _ in range(steps):
        images = torch.randn(8, 5, generator=generator, dtype=torch.float64).to(dtype)
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def with_decay(
    model: nn.Module, optimizer_class: type, form: Form, wd: float, *, schedule=None, **options
) -> Optimizer:
    """An optimizer whose decay, of every parameter, is attached."""
    groups = decay.param_groups(model, wd, decay_bias=True)
    optimizer = optimizer_class(groups, weight_decay=0.0, **options)
    decay.attach(optimizer, form, schedule=schedule or decay.schedules.constant)
    return optimizer


def idle(optimizer: Optimizer, steps: int) -> None:
    """Steps whose gradients are zero."""
    for _ in range(steps):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    """Whether two lists of tensors are equal to the last bit."""
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
