"""The small classifier that qwd and other tools train alike, from one start on the same batches.

A tool that runs torch's own operations in the same order must give the same bits. Where it orders
or rounds them otherwise, float64 holds both to a relative 1e-10 after 100 steps: each step differs
by units in the last place (1e-16) and the problem is smooth, so that nothing amplifies them.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from qwd import decay
from qwd.decay import Form, Schedule, schedules

STEPS, LR, WD = 100, 0.05, 0.1
DTYPES = [torch.float32, torch.float64]
MOMENTUM: dict[str, Any] = {"momentum": 0.9}
NESTEROV: dict[str, Any] = {"momentum": 0.9, "nesterov": True}


def classifier(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3)).to(dtype)


def batches(dtype: torch.dtype = torch.float64) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    for _ in range(STEPS):
        labels = torch.randint(3, (16,), generator=generator)
        noise = torch.randn(16, 5, generator=generator, dtype=torch.float64)
        yield (centres[labels] + noise).to(dtype), labels


def half_cosine(step: int) -> float:
    return 0.5 + 0.5 * math.cos(math.pi * step / STEPS)


def trained(model: nn.Module, optimizer: Optimizer, rate: Callable[[int], float]) -> list[Tensor]:
    """The weights after training at ``rate(step)`` times the optimizer's rate."""
    scheduler = LambdaLR(optimizer, rate)
    for images, labels in batches(next(model.parameters()).dtype):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        scheduler.step()
    return [p.detach().clone() for p in model.parameters()]


def ours(
    make: Callable[..., Optimizer],
    form: Form,
    dtype: torch.dtype = torch.float64,
    *,
    rate: Callable[[int], float] = half_cosine,
    schedule: Schedule = schedules.constant,
    lr_corrected: str | None = None,
    decay_all: bool = False,
    **options: Any,
) -> list[Tensor]:
    """The weights after training with an optimizer of no decay of its own, and ``form``."""
    model = classifier(dtype)
    groups = decay.param_groups(
        model, WD, lr_corrected=lr_corrected, decay_bias=decay_all, decay_norm=decay_all
    )
    optimizer = make(groups, lr=LR, weight_decay=0.0, **options)
    decay.attach(optimizer, form, schedule=schedule)
    return trained(model, optimizer, rate)


def close(one: list[Tensor], other: list[Tensor], rtol: float = 1e-10) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol / 100)
