"""One step of all replicas, as fast as this machine can: recorded, compiled, or in a CUDA graph."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from qwd.decay import Form
from qwd.errors import reason
from qwd.train.compiler import DETERMINISTIC, obstacle_to_compiling, quietly
from qwd.train.fused.figures import WatchedStep
from qwd.train.fused.gradients import Computed
from qwd.train.fused.tracing import traced
from qwd.train.fused.updates import decay

if TYPE_CHECKING:
    from qwd.train.fused.program import Program

COST = 30.0
"""seconds that compilation takes, about; with a warm cache less"""
GAIN = 0.75
"""what is left of the time of a step, about, of a small convolutional network"""
TRIALS = 5


class Tensors(NamedTuple):
    """What a step reads and changes in place, and the constants."""

    weights: Tensor
    slots: tuple[Tensor, ...]
    buffers: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    loss_sum: Tensor
    """of every place in a batch, [R, B]"""
    right_sum: Tensor
    """int64 [R, B]"""


class Part(NamedTuple):
    """A parameter of all replicas, and the numbers of its step: [R, 1, ...] each."""

    weights: Tensor
    slots: dict[str, Tensor]
    numbers: dict[str, Tensor]
    forms: list[tuple[Form, Tensor]]
    """that act on it, with their coefficients"""


class Step:
    """Computes gradients and takes the step; sums losses and hits over an epoch."""

    def __init__(self, program: "Program"):
        self.program = program
        stack = program.stack
        rows = len(stack.sessions)
        size = stack.sessions[0].batch_size
        self.loss_sum = torch.zeros(rows, size, dtype=stack.dtype, device=stack.device)
        self.right_sum = torch.zeros(rows, size, dtype=torch.int64, device=stack.device)
        self.compiled: Callable[..., Any] | None = None
        self.replayed: _Replayed | None = None
        self.notes: list[str] = []
        """what a user is told of it"""
        forms = program.forms
        # Blocks that no form acts on: the coefficients of all their replicas are zero for good.
        self.decayed = [
            any(
                forms[f].acts and session.optimizer.param_groups[g].get("decay")
                for session, g, f in zip(stack.sessions, block.groups, program.form_of, strict=True)
            )
            for block in stack.blocks
        ]
        slots, buffers = tuple(stack.slots.values()), tuple(stack.buffers.values())
        constants = tuple(stack.constants.values())
        self.tensors = Tensors(
            stack.weights, slots, buffers, constants, self.loss_sum, self.right_sum
        )
        self.at = torch.zeros(
            len(program.names), len(stack.blocks), rows, 1, dtype=stack.dtype, device=stack.device
        )
        """the numbers of the step at hand"""
        self.parts = self._parts(self.tensors, self.at)

    def epoch_begins(self) -> None:
        """Sum anew."""
        self.loss_sum.zero_()
        self.right_sum.zero_()

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor, at: Tensor) -> None:
        """``at`` holds the numbers of the step, [numbers, blocks, R, 1]."""
        if self.replayed is not None:
            self.replayed(images, labels, at)
        elif self.compiled is not None:
            self.compiled(self.tensors, images, labels, at)
        else:
            self._at_hand(self.program.gradients(images, labels), at)

    @torch.no_grad()
    def watched(self, images: Tensor, labels: Tensor, at: Tensor, coefficients: Tensor) -> None:
        """The same, its figures for ``metrics.csv`` taken; ``coefficients`` [blocks, R]."""
        found = self.program.gradients(images, labels)
        figures = WatchedStep(self.program.stack, found.gradients, coefficients)
        self._at_hand(found, at)
        figures.taken()

    def compile(self, images: Tensor, labels: Tensor, at: Tensor) -> bool:
        """Compile the step where that can be done, and keep it where it is faster."""
        if not self.program.records or obstacle_to_compiling(images.device):
            return False
        with quietly(), torch.no_grad():
            try:
                given = (self._copies(), images, labels, at)
                made = self._made(given)
                made(*given)
                before, after = _timed(self._plain, given), _timed(made, given)
            except Exception:  # of a compiler that is broken or lacks something
                return False
        self.compiled = made if after < before else None
        return self.compiled is not None

    def capture(self, images: Tensor, labels: Tensor, at: Tensor) -> None:
        """On a GPU: launch all kernels of a step at once from now on, where that can be done."""
        if images.device.type != "cuda" or not self.program.records:
            return
        with quietly(), torch.no_grad():
            step = self.compiled or self._plain
            try:
                self.replayed = _Replayed(step, self.tensors, self._copies(), (images, labels, at))
            except RuntimeError as error:
                which = "compiled step" if self.compiled else "step"
                self.notes.append(f"its {which} is not in a CUDA graph: {reason(error)}")

    def _copies(self) -> Tensors:
        """The same to try things on."""
        return tree_map(torch.clone, self.tensors)

    def _made(self, given: tuple[Any, ...]) -> Callable[..., Any]:
        """The step as a compiled function, which reads nothing but its arguments."""
        gradients = self.program.gradients

        def step(tensors: Tensors, images: Tensor, labels: Tensor, at: Tensor) -> list[Tensor]:
            constants, buffers = list(tensors.constants), list(tensors.buffers)
            found = gradients.compute(tensors.weights, constants, buffers, images, labels)
            self._taken(tensors, self._parts(tensors, at), gradients.computed(found))
            return []

        made: Any = torch.compile(traced(step, given), dynamic=False, options=DETERMINISTIC)
        return lambda *arguments: made(*tree_leaves(list(arguments)))

    def _plain(self, tensors: Tensors, images: Tensor, labels: Tensor, at: Tensor) -> None:
        found = self.program.gradients(images, labels)
        self._taken(tensors, self._parts(tensors, at), found)

    def _parts(self, tensors: Tensors, at: Tensor) -> list[Part]:
        """``at`` holds the numbers of a step, [numbers, blocks, R, 1]."""
        program, stack, found = self.program, self.program.stack, []
        for name, place in stack.block_of.items():
            weights = stack.part(tensors.weights, name)
            row = (-1, *[1] * (weights.dim() - 1))
            numbers = {n: at[i, place].view(row) for i, n in enumerate(program.names)}
            pairs = zip(program.stack.slots, tensors.slots, strict=True)
            slots = {slot: stack.part(matrix, name) for slot, matrix in pairs}
            forms = [(form, numbers[f"wd{f}"]) for f, form in enumerate(program.forms)]
            found.append(Part(weights, slots, numbers, forms if self.decayed[place] else []))
        return found

    def _at_hand(self, found: Computed, at: Tensor) -> None:
        self.at.copy_(at)
        self._taken(self.tensors, self.parts, found)

    def _taken(self, tensors: Tensors, parts: list[Part], found: Computed) -> None:
        """Sums, buffers, decay forms and optimizer, in place."""
        tensors.loss_sum.add_(found.losses)
        tensors.right_sum.add_(found.right)
        for buffer, value in zip(tensors.buffers, found.buffers, strict=True):
            buffer.copy_(value)
        for part, gradient in zip(parts, found.gradients, strict=True):
            for form, wd in part.forms:
                decay(form, part.weights, gradient, wd, part.numbers["rate"])
            self.program.update.apply(part.weights, gradient, part.slots, part.numbers)


class _Replayed:
    """A step as a CUDA graph, whose inputs are copied to where it reads them."""

    def __init__(
        self,
        step: Callable[..., Any],
        tensors: Tensors,
        copies: Tensors,
        inputs: tuple[Tensor, ...],
    ):
        self.inputs = tuple(each.clone() for each in inputs)
        # The device at hand is the first one, whichever these tensors are on.
        with torch.cuda.device(tensors.weights.device):
            beside = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            # Around the graph as well, which leaves its stream in place where it fails.
            with torch.cuda.stream(beside):
                # Libraries set themselves up at their first calls, which a graph must not hold.
                for _ in range(3):
                    step(copies, *self.inputs)
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph, stream=beside):
                    step(tensors, *self.inputs)
            torch.cuda.current_stream().wait_stream(beside)

    def __call__(self, *inputs: Tensor) -> None:
        for own, new in zip(self.inputs, inputs, strict=True):
            own.copy_(new)
        self.graph.replay()


def pays(seconds: float) -> bool:
    """Whether so many seconds of steps are enough to compile for."""
    return seconds * (1 - GAIN) > COST


def _timed(step: Callable[..., Any], given: tuple[Any, ...]) -> float:
    """Seconds of the fastest of some calls."""
    found = []
    for _ in range(TRIALS):
        started = time.perf_counter()
        step(*given)
        if given[1].device.type == "cuda":
            torch.cuda.synchronize(given[1].device)
        found.append(time.perf_counter() - started)
    return min(found)
