"""Parameters, buffers and optimizer state of several sessions, side by side.

All trained parameters of replica r are row r of one matrix [R, N], its columns ordered by blocks
that have one rate and one coefficient in every replica. Gradients and optimizer state are matrices
of the same columns. The sessions' own tensors become views, so that whatever reads a session reads
the stack.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qwd.train.session import Session


class NotCarriedError(Exception):
    """Why these sessions cannot be one program; one line."""


@dataclass(frozen=True)
class Block:
    """Columns whose parameters are in the same parameter group in every session."""

    start: int
    stop: int
    groups: tuple[int, ...]
    """of session r, the index of the group"""

    def of(self, matrix: Tensor) -> Tensor:
        """These columns: a view [R, stop - start]."""
        return matrix[:, self.start : self.stop]


class Stack:
    """The tensors of ``sessions``; ``trained`` names the parameters that get a gradient.

    ``weights`` is [R, N] in the dtype of the model, ``buffers`` and ``constants`` (parameters that
    are not trained) hold [R, ...] by name. Raises NotCarriedError where the parameters have several
    dtypes, or differ between sessions.
    """

    def __init__(self, sessions: Sequence[Session], trained: Sequence[str], slots: Sequence[str]):
        self.sessions = sessions
        networks = [session.network for session in sessions]
        parameters = [dict(network.named_parameters()) for network in networks]
        shapes = [{n: (p.shape, p.dtype) for n, p in each.items()} for each in parameters]
        if any(each != shapes[0] for each in shapes):
            raise NotCarriedError("the models of different seeds have different parameters")
        dtypes = {parameters[0][name].dtype for name in trained}
        if len(dtypes) != 1:
            raise NotCarriedError("the parameters have several dtypes")
        self.device = sessions[0].device
        (self.dtype,) = dtypes
        of_group = [_groups(session) for session in sessions]
        by_groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for name in trained:
            by_groups[tuple(each[name] for each in of_group)].append(name)
        self.places: dict[str, slice] = {}
        self.shapes = {name: tuple(parameters[0][name].shape) for name in trained}
        self.blocks: list[Block] = []
        self.block_of: dict[str, int] = {}
        """of a parameter, the index of its block"""
        end = 0
        for groups, names in by_groups.items():
            start = end
            for name in names:
                self.places[name] = slice(end, end + parameters[0][name].numel())
                end = self.places[name].stop
                self.block_of[name] = len(self.blocks)
            self.blocks.append(Block(start, end, groups))
        self.weights = self._matrix(end)
        self.slots = {slot: self._matrix(end) for slot in slots}
        self.buffers = _stacked([dict(network.named_buffers()) for network in networks])
        rest = [{n: p for n, p in each.items() if n not in self.places} for each in parameters]
        self.constants = _stacked(rest)
        for r, (session, each) in enumerate(zip(sessions, parameters, strict=True)):
            for name in self.places:
                view = self.part(self.weights, name)[r]
                view.copy_(each[name].detach())
                each[name].data = view
                state = session.optimizer.state.get(each[name], {})
                for slot in self.slots.keys() & state.keys():
                    self.part(self.slots[slot], name)[r].copy_(state[slot])
            for name, buffer in session.network.named_buffers():
                buffer.data = self.buffers[name][r]
        self._parameters = parameters

    def part(self, matrix: Tensor, name: str) -> Tensor:
        """A parameter's columns of a matrix [R, N]: a view [R, *shape]."""
        return (
            matrix[:, self.places[name]]
            .unflatten(1, self.shapes[name] or (1,))
            .view(len(matrix), *self.shapes[name])
        )

    def write_back(self, steps: int, has_step: bool) -> None:
        """Give the sessions' optimizers their state after so many steps."""
        for r, (session, each) in enumerate(zip(self.sessions, self._parameters, strict=True)):
            for name in self.places if self.slots else ():
                state: dict[str, Any] = session.optimizer.state[each[name]]
                for slot, matrix in self.slots.items():
                    state[slot] = self.part(matrix, name)[r]
                if has_step:
                    state["step"] = torch.tensor(float(steps), dtype=torch.float32)

    def _matrix(self, columns: int) -> Tensor:
        rows = len(self.sessions)
        return torch.zeros(rows, columns, dtype=self.dtype, device=self.device)


def _groups(session: Session) -> dict[str, int]:
    """The parameter group of every parameter in the session's optimizer."""
    names = {id(p): name for name, p in session.network.named_parameters()}
    groups = session.optimizer.param_groups
    return {names[id(p)]: i for i, group in enumerate(groups) for p in group["params"]}


def _stacked(tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    try:
        return {n: torch.stack([each[n].detach() for each in tensors]) for n in tensors[0]}
    except (KeyError, RuntimeError, TypeError) as error:
        raise NotCarriedError("the models of different seeds have different buffers") from error
