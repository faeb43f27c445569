"""Loss and gradients of all replicas at once: ``vmap(grad)`` over the stack.

A network of torch's own modules does the same at every step, so that the operations are recorded
once and replayed without the cost of vmap. A module of someone else's may not, and is run anew
each time.
"""

import contextlib
import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from qwd.errors import reason
from qwd.train.devices import without_tf32
from qwd.train.forward import outputs_and_loss, precision
from qwd.train.fused.normalising import Normalising
from qwd.train.fused.recorded import Recorded
from qwd.train.fused.stack import NotCarriedError, Stack
from qwd.train.models.known import known
from qwd.train.session import Session

AGREEMENT = {torch.float64: 1e-9, torch.float32: 1e-3}
"""how far gradients may be from those of a single network, relative to their norm"""
ROUNDINGS = 2
"""the same in bfloat16, in multiples of what bfloat16 does to those of the single network: two
roundings that know nothing of each other are sqrt(2) apart"""


class Computed(NamedTuple):
    """What a batch gives each replica."""

    gradients: list[Tensor]
    """of the stack's parameters, [R, ...] each"""
    losses: Tensor
    """of each image, [R, B]"""
    right: Tensor
    """bool [R, B]: images classified rightly"""
    buffers: list[Tensor]
    """new values, [R, ...] each"""


class Alone(NamedTuple):
    """What a batch gives a single network, computed in the ordinary way."""

    gradients: dict[str, Tensor]
    """of the parameters that have one"""
    saved: int
    """bytes that the forward pass keeps for the backward one"""


def alone(session: Session, images: Tensor, labels: Tensor, amp: bool) -> Alone:
    """The gradients of one session, which is left as it is; random numbers are drawn."""
    network = session.network
    own = {n: p.detach().clone().requires_grad_(p.requires_grad) for n, p in _parameters(network)}
    buffers = {n: b.detach().clone() for n, b in network.named_buffers()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    network.train()
    trainable = {name: p for name, p in own.items() if p.requires_grad}
    with without_tf32():
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            model: Any = functools.partial(functional_call, network, {**own, **buffers})
            _, mean = outputs_and_loss(model, images, labels, amp)
        found = torch.autograd.grad(mean, list(trainable.values()), allow_unused=True)
    pairs = zip(trainable, found, strict=True)
    return Alone({name: g for name, g in pairs if g is not None}, sum(kept.values()))


class Gradients:
    """A function of a batch: losses and gradients at the stack's weights, which stay as they are.

    ``spread``: whether each replica has a batch of its own, [R, B, ...], or all share one. Random
    numbers (dropout) are drawn once for all replicas. ``amp``: in bfloat16, gradients in the dtype
    of the weights. Raises NotCarriedError where vmap cannot carry the model.
    """

    def __init__(self, stack: Stack, spread: bool, amp: bool):
        self.stack = stack
        self.spread = spread
        self.amp = amp
        self.session = stack.sessions[0]
        self.names = list(stack.places)
        self.recorded: Recorded | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Computed:
        """``images`` [R, B, ...] or [B, ...] and ``labels`` likewise."""
        with torch.no_grad():
            if self.recorded is not None:
                return self.computed(self.recorded(images, labels))
            return self.computed(self.compute(*self._standing(), images, labels))

    def computed(self, found: list[Tensor]) -> Computed:
        """What `compute` gives, by name."""
        n = len(self.names)
        return Computed(found[:n], found[n], found[n + 1], found[n + 2 :])

    def record(self, images: Tensor, labels: Tensor) -> None:
        """Replay the operations of this call from now on, where that is the same."""
        if known(self.session.network):
            # What cannot be recorded is run.
            with torch.no_grad(), contextlib.suppress(Exception):
                self.recorded = Recorded(self.compute, self._standing(), (images, labels))

    def is_random(self, images: Tensor, labels: Tensor) -> bool:
        """Whether the model draws random numbers; NotCarriedError where vmap fails."""
        try:
            with torch.no_grad():
                self._mapped("error", *self._standing(), images, labels)
        except torch.OutOfMemoryError:  # fewer replicas may do
            raise
        except RuntimeError as error:
            if "randomness" in str(error):
                return True
            raise NotCarriedError(f"vmap fails: {reason(error)}") from error
        except Exception as error:  # of a model that anyone may have written
            raise NotCarriedError(f"vmap fails: {reason(error)}") from error
        return False

    def check(
        self, images: Tensor, labels: Tensor, expected: dict[str, Tensor], rounding: float = 0.0
    ) -> None:
        """NotCarriedError where the first replica's gradients are not the ``expected`` ones.

        ``rounding`` is what bfloat16 does to those, see `distance`.
        """
        with without_tf32():  # whose rounding is as large as the limit
            found = self(images, labels).gradients
        first = {name: each[0] for name, each in zip(self.names, found, strict=True)}
        limit = max(AGREEMENT.get(self.stack.dtype, 1e-2), ROUNDINGS * rounding)
        if not distance(first, expected) <= limit:
            raise NotCarriedError(
                "its gradients, or random numbers, under vmap are not those of the model alone"
            )

    def compute(self, *given: Any) -> list[Tensor]:
        """What a batch gives, as a function of the stack's weights, constants and buffers too."""
        return self._mapped("same", *given)

    def _standing(self) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        stack = self.stack
        return stack.weights, list(stack.constants.values()), list(stack.buffers.values())

    def _mapped(
        self,
        randomness: str,
        weights: Tensor,
        constants: list[Tensor],
        buffers: list[Tensor],
        images: Tensor,
        labels: Tensor,
    ) -> list[Tensor]:
        stack, network = self.stack, self.session.network
        network.train()

        def loss_of(
            own: list[Tensor], fixed: list[Tensor], before: list[Tensor], x: Tensor, y: Tensor
        ) -> Any:
            # The forward pass changes buffers in place: copies of its own.
            after = [buffer.clone() for buffer in before]
            state = dict(zip(self.names, own, strict=True))
            state |= dict(zip(stack.constants, fixed, strict=True))
            state |= dict(zip(stack.buffers, after, strict=True))
            with precision(stack.device, self.amp), Normalising():
                outputs = functional_call(network, state, (x,))
            losses = cross_entropies(outputs, y)
            return losses.mean(), (losses.detach(), outputs.detach().argmax(dim=1) == y, after)

        each = 0 if self.spread else None
        parts = [stack.part(weights, name) for name in self.names]
        found, (losses, right, after) = vmap(
            grad(loss_of, has_aux=True), in_dims=(0, 0, 0, each, each), randomness=randomness
        )(parts, constants, buffers, images, labels)
        known = [weights, *constants, *buffers, images, labels]
        return [*_own(found, known), losses, right, *after]


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Of gradients from others, relative to the norm of these."""
    apart = norm = 0.0
    for name, right in expected.items():
        apart += float((found[name] - right).double().square().sum())
        norm += float(right.double().square().sum())
    if norm == 0:
        return math.inf if apart else 0.0
    return math.sqrt(apart / norm)


def cross_entropies(outputs: Tensor, labels: Tensor) -> Tensor:
    """Of outputs [B, classes], [B]; `qwd.train.forward.loss` is their mean.

    Of bfloat16 outputs in float32, as autocast has it. Classes go first: over a short last
    dimension a CPU takes ten times as long for a softmax.
    """
    own = outputs.float() if outputs.dtype == torch.bfloat16 else outputs
    logs = F.log_softmax(own.t().contiguous(), dim=0)
    # No gather, whose gradient a GPU adds up in any order.
    chosen = torch.arange(len(logs), device=logs.device).unsqueeze(1) == labels
    return -(logs * chosen.to(logs.dtype)).sum(dim=0)


def _own(tensors: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    """The same, each in memory of its own, that it may be changed in place."""
    taken = {other.untyped_storage()._cdata for other in others}
    found = []
    for tensor in tensors:
        place = tensor.untyped_storage()._cdata
        strides = zip(tensor.shape, tensor.stride(), strict=True)
        repeated = any(size > 1 and stride == 0 for size, stride in strides)
        alone = place not in taken and not repeated
        found.append(tensor if alone else tensor.clone(memory_format=torch.contiguous_format))
        taken.add(place)
    return found


def _parameters(network: nn.Module) -> Any:
    return network.named_parameters()
