"""What ``metrics.csv`` says of weights and validation, worked out for all replicas at once.

The figures are those of `qwd.train.watch` and `qwd.train.evaluation`, whose functions are mapped
over the replicas.
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from qwd.quantize.arithmetic import arithmetic_dtype
from qwd.quantize.folding import folded_weight, norm_factor, weight_names
from qwd.train.devices import without_tf32
from qwd.train.evaluation import BATCH
from qwd.train.fused.gradients import cross_entropies
from qwd.train.fused.stack import Stack
from qwd.train.session import Session
from qwd.train.watch import NO_GRADIENT, raw_of

IMAGES = 16384
"""of `SIDE` pixels a side, times replicas, in a forward pass; no more than `BATCH` images"""
SIDE = 32
PENALTIES = {"l2": 0, "l1": 1}
"""columns of the penalties among the figures of a step"""


class Replica(Session):
    """A session whose range after folding is worked out elsewhere."""

    known_range: float | None = None

    def folded_range(self) -> float | None:
        return self.known_range

    def state(self) -> dict[str, Any]:
        # A view would be stored with the tensors of all replicas.
        return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, super().state())


class WatchedStep:
    """The figures of one step: made before it, ``taken`` after it."""

    def __init__(self, stack: Stack, gradients: list[Tensor], coefficients: Tensor):
        """``gradients`` of the data loss, [R, ...] each; ``coefficients`` [blocks, R]."""
        self.stack = stack
        self.dtype = arithmetic_dtype(stack.dtype)
        self.before = stack.weights.to(self.dtype, copy=True)
        self.coefficients = coefficients.to(self.dtype)
        self.gradients = {
            name: _norms(gradient.to(self.dtype))
            for name, gradient in zip(stack.places, gradients, strict=True)
        }

    def taken(self) -> None:
        """Hand every session's watch what it would have measured."""
        stack, after = self.stack, self.stack.weights.to(self.dtype)
        numbers: list[Tensor] = []
        watch = stack.sessions[0].watch
        for name, w in watch.filled.items():
            if name in stack.places:
                parts = stack.part(self.before, name), stack.part(after, name)
                numbers += raw_of(*parts, self.gradients[name])
            else:  # of a weight that is not trained
                parts = stack.constants[name].to(arithmetic_dtype(w.dtype))
                none = parts.new_full((len(parts),), NO_GRADIENT)
                numbers += raw_of(parts, parts, none)
        columns = torch.stack([self._penalty(2), self._penalty(1), *numbers], dim=1).double()
        for session, own in zip(stack.sessions, columns.cpu().numpy(), strict=True):
            chosen = own[2:]
            if session.watch.penalty in PENALTIES:
                penalty = PENALTIES[session.watch.penalty]
                chosen = np.concatenate([own[penalty : penalty + 1], chosen])
            session.watch.measured = chosen if len(chosen) else None

    def _penalty(self, order: int) -> Tensor:
        """Sum of wd/2 |w|^2, or of wd |w|_1, over the decayed parameters of each replica: [R]."""
        total = self.coefficients.new_zeros(len(self.stack.sessions))
        for block, wd in zip(self.stack.blocks, self.coefficients, strict=True):
            norms = torch.linalg.vector_norm(
                block.of(self.stack.weights), order, dim=1, dtype=self.dtype
            )
            total += wd * (norms.square() / 2 if order == 2 else norms)
        return total


@torch.no_grad()
def validation(stack: Stack) -> list[tuple[float, float]]:
    """Loss and accuracy of every replica on the validation split; dead channels are counted."""
    session = stack.sessions[0]
    network, split, dead = session.network, session.data.validation, session.watch.dead
    network.eval()
    state = {name: stack.part(stack.weights, name) for name in stack.places}
    state |= {**stack.constants, **stack.buffers}

    def forward(tensors: dict[str, Tensor], images: Tensor) -> tuple[Tensor, dict[Any, Tensor]]:
        with dead.watching():
            outputs = functional_call(network, tensors, (images,))
            return outputs.float(), dict(dead.alive)

    larger = max(1, (session.data.image_size / SIDE) ** 2)
    size = max(16, min(BATCH, int(IMAGES / larger) // len(stack.sessions)))
    outputs, alive = [], {}
    with without_tf32():
        for images, _ in split.batches(None, size, device=stack.device):
            found, masks = vmap(forward, in_dims=(0, None))(state, images)
            outputs.append(found.cpu())
            alive = {k: alive[k] | mask if k in alive else mask for k, mask in masks.items()}
    network.train()
    for r, each in enumerate(stack.sessions):
        each.watch.dead.alive = {key: mask[r] for key, mask in alive.items()}
    logits, labels = torch.cat(outputs, dim=1), split.labels
    losses = vmap(cross_entropies, in_dims=(0, None))(logits, labels).mean(dim=1).tolist()
    right = (logits.argmax(dim=2) == labels).double().mean(dim=1).tolist()
    return list(zip(losses, right, strict=True))


@torch.no_grad()
def folded_ranges(stack: Stack) -> list[float | None]:
    """`Session.folded_range` of every replica."""
    session = stack.sessions[0]
    if any(hasattr(module, "deploy_form") for module in session.network.modules()):
        return [Session.folded_range(each) for each in stack.sessions]
    tensors = {name: stack.part(stack.weights, name) for name in stack.places}
    tensors |= {**stack.constants, **stack.buffers}
    names = weight_names(session.network)
    folded = {name: tensors[name] for name in names if name in tensors}
    for layer, norm in session.fold_plan.pairs:
        if f"{layer}.weight" in folded:
            folded[f"{layer}.weight"] = _folded(session.network, layer, norm, tensors)
    if not folded or len(folded) != len(names):
        return [Session.folded_range(each) for each in stack.sessions]
    spans, sizes = [], []
    for weight in folded.values():
        flat = weight.flatten(1)
        if flat.shape[1]:
            low, high = flat.amin(dim=1).double(), flat.amax(dim=1).double()
            spans.append(flat.shape[1] * (high - low))
            sizes.append(flat.shape[1])
    means = (torch.stack(spans).sum(dim=0) / sum(sizes)).tolist() if spans else []
    finite = [mean if abs(mean) < float("inf") else None for mean in means]
    return finite or [None] * len(stack.sessions)


def _folded(network: nn.Module, layer: str, norm: str, tensors: dict[str, Tensor]) -> Tensor:
    """A weight with its BatchNorm folded in, of every replica."""
    of: Any = network.get_submodule(norm)
    factors = norm_factor(tensors[f"{norm}.running_var"], of.eps, tensors.get(f"{norm}.weight"))
    one = functools.partial(folded_weight, network.get_submodule(layer))
    return vmap(one)(tensors[f"{layer}.weight"], factors)


def _norms(stacked: Tensor) -> Tensor:
    """The Euclidean norm of each [...] in [R, ...]."""
    return torch.linalg.vector_norm(stacked.unsqueeze(-1).flatten(1), dim=1)
