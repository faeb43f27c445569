"""The optimizers of torch.optim that training offers; decay is attached to them, not in them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import optim


@dataclass(frozen=True)
class OptimizerKind:
    """How to build an optimizer, and how far its momentum amplifies a constant gradient.

    ``build(groups, lr, momentum)``; ``gain(momentum)`` is None for optimizers that divide the
    gradient by its own scale.
    """

    build: Callable[[list[dict[str, Any]], float, float], optim.Optimizer]
    gain: Callable[[float], float | None]
    summary: str


sgd = OptimizerKind(
    build=lambda groups, lr, momentum: optim.SGD(groups, lr=lr, momentum=momentum),
    gain=lambda momentum: 1 / (1 - momentum),
    summary="stochastic gradient descent with momentum",
)
adam = OptimizerKind(
    build=lambda groups, lr, momentum: optim.Adam(groups, lr=lr, betas=(momentum, 0.999)),
    gain=lambda momentum: None,
    summary="Adam (Kingma & Ba 2015), beta2 = 0.999",
)
adamw = OptimizerKind(
    build=lambda groups, lr, momentum: optim.AdamW(
        groups, lr=lr, betas=(momentum, 0.999), weight_decay=0.0
    ),
    gain=lambda momentum: None,
    summary="AdamW (Loshchilov & Hutter 2019): Adam with decoupled decay, beta2 = 0.999",
)
