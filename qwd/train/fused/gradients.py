"""Loss and gradients of all replicas at once: ``vmap(grad)`` over the stack.

A network of torch's own modules does the same at every step, so that the operations are recorded
once and replayed without the cost of vmap. A module of someone else's may not, and is run anew
each time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, grad, vmap

from qwd.errors import reason
from qwd.train.forward import loss
from qwd.train.fused.stack import NotCarriedError, Stack
from qwd.train.models.known import known
from qwd.train.session import Session

AGREEMENT = {torch.float64: 1e-9, torch.float32: 1e-3}
"""how far gradients may be from those of a single network, relative to their norm"""

ATEN = torch.ops.aten
VIEWS = (
    ATEN.view.default,
    ATEN._unsafe_view.default,
    ATEN.expand.default,
    ATEN.transpose.int,
    ATEN.detach.default,
)


class Computed(NamedTuple):
    """What a batch gives each replica."""

    gradients: Tensor
    """[R, N]"""
    losses: Tensor
    """[R]"""
    right: Tensor
    """int64 [R], images classified rightly"""
    buffers: list[Tensor]
    """new values, [R, ...] each"""


class Alone(NamedTuple):
    """What a batch gives a single network, computed in the ordinary way."""

    gradients: dict[str, Tensor]
    """of the parameters that have one"""
    saved: int
    """bytes that the forward pass keeps for the backward one"""


def alone(session: Session, images: Tensor, labels: Tensor) -> Alone:
    """The gradients of one session, which is left as it is; random numbers are drawn."""
    network = session.network
    own = {n: p.detach().clone().requires_grad_(p.requires_grad) for n, p in _parameters(network)}
    buffers = {n: b.detach().clone() for n, b in network.named_buffers()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    network.train()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        mean = loss(functional_call(network, {**own, **buffers}, (images,)), labels)
    trainable = {name: p for name, p in own.items() if p.requires_grad}
    found = torch.autograd.grad(mean, list(trainable.values()), allow_unused=True)
    pairs = zip(trainable, found, strict=True)
    return Alone({name: g for name, g in pairs if g is not None}, sum(kept.values()))


class Gradients:
    """A function of a batch: losses and gradients at the stack's weights, which stay as they are.

    ``spread``: whether each replica has a batch of its own, [R, B, ...], or all share one. Random
    numbers (dropout) are drawn once for all replicas. Raises NotCarriedError where vmap cannot
    carry the model.
    """

    def __init__(self, stack: Stack, spread: bool):
        self.stack = stack
        self.spread = spread
        self.session = stack.sessions[0]
        self.names = list(stack.places)
        self.compute: Callable[..., Any] = self._replicas
        self.recorded = False

    def __call__(self, images: Tensor, labels: Tensor) -> Computed:
        """``images`` [R, B, ...] or [B, ...] and ``labels`` likewise."""
        with torch.no_grad():
            return Computed(*self.compute(*self.inputs(images, labels)))

    def inputs(self, images: Tensor, labels: Tensor) -> tuple[Any, ...]:
        """What `compute` takes."""
        stack = self.stack
        constants, buffers = list(stack.constants.values()), list(stack.buffers.values())
        return stack.weights, constants, buffers, images, labels

    def record(self, images: Tensor, labels: Tensor) -> None:
        """Replay the operations of this call from now on, where that is the same."""
        if not known(self.session.network):
            return
        from torch.fx.experimental.proxy_tensor import make_fx

        try:
            with torch.no_grad():
                # A function: of a bound method torch would count `self` among the arguments.
                made: Any = make_fx(lambda w, c, b, x, y: self._replicas(w, c, b, x, y))(
                    *self.inputs(images, labels)
                )
                self.compute = without_idle(made)
                self.recorded = True
        except Exception:  # what cannot be recorded is run
            self.compute = self._replicas

    def is_random(self, images: Tensor, labels: Tensor) -> bool:
        """Whether the model draws random numbers; NotCarriedError where vmap fails."""
        try:
            with torch.no_grad():
                self._mapped("error", *self.inputs(images, labels))
        except RuntimeError as error:
            if "randomness" in str(error):
                return True
            raise NotCarriedError(f"vmap fails: {reason(error)}") from error
        except Exception as error:  # of a model that anyone may have written
            raise NotCarriedError(f"vmap fails: {reason(error)}") from error
        return False

    def check(self, images: Tensor, labels: Tensor, expected: dict[str, Tensor]) -> None:
        """NotCarriedError where the first replica's gradients are not the ``expected`` ones."""
        found = self(images, labels).gradients
        limit = AGREEMENT.get(self.stack.dtype, 1e-2)
        apart = norm = 0.0
        for name, right in expected.items():
            apart += float((self.stack.part(found, name)[0] - right).double().square().sum())
            norm += float(right.double().square().sum())
        if not apart <= limit**2 * norm:
            raise NotCarriedError("its gradients under vmap are not those of the model alone")

    def _replicas(
        self,
        weights: Tensor,
        constants: list[Tensor],
        buffers: list[Tensor],
        images: Tensor,
        labels: Tensor,
    ) -> Any:
        return self._mapped("same", weights, constants, buffers, images, labels)

    def _mapped(
        self,
        randomness: str,
        weights: Tensor,
        constants: list[Tensor],
        buffers: list[Tensor],
        images: Tensor,
        labels: Tensor,
    ) -> Any:
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
            outputs = functional_call(network, state, (x,))
            found = plain_loss(outputs, y)
            return found, (found.detach(), (outputs.detach().argmax(dim=1) == y).sum(), after)

        each = 0 if self.spread else None
        parts = [stack.part(weights, name) for name in self.names]
        found, (losses, right, after) = vmap(
            grad(loss_of, has_aux=True), in_dims=(0, 0, 0, each, each), randomness=randomness
        )(parts, constants, buffers, images, labels)
        return torch.cat([g.flatten(1) for g in found], dim=1), losses, right, after


def plain_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """`qwd.train.forward.loss` in half as many operations: no label is to be ignored.

    log sum exp z - z_label for z = outputs less their largest, [B, classes]; mean over the batch.
    """
    z = outputs - outputs.amax(dim=1, keepdim=True).detach()
    # No gather, whose gradient a GPU adds up in any order.
    chosen = labels.unsqueeze(1) == torch.arange(z.shape[1], device=z.device)
    return (z.exp().sum(dim=1).log() - torch.where(chosen, z, 0.0).sum(dim=1)).mean()


def without_idle(graph: fx.GraphModule) -> fx.GraphModule:
    """The same without views of what is there: vmap leaves many, and each takes its time."""
    for node in list(graph.graph.nodes):
        before = node
        while before.target in VIEWS and isinstance(before.args[0], fx.Node):
            before = before.args[0]
            # Of one memory, so that where these agree the elements do.
            if _layout(before) is not None and _layout(before) == _layout(node):
                node.replace_all_uses_with(before)
                graph.graph.erase_node(node)
                break
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _layout(node: fx.Node) -> tuple[Any, ...] | None:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    return value.shape, value.stride(), value.storage_offset()


def _parameters(network: nn.Module) -> Any:
    return network.named_parameters()
