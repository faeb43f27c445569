"""Early stopping: the epoch of the lowest validation loss, and its weights."""

import copy
from typing import Any

import torch
from torch import nn


class EarlyStopping:
    """Remembers the best epoch, and its weights where training may stop early.

    ``patience``: epochs without a lower validation loss after which to stop; None is never.
    """

    def __init__(self, patience: int | None):
        self.patience = patience
        self.epoch = 0
        """the best one so far, counted from 1"""
        self._loss = float("inf")
        self._weights: dict[str, torch.Tensor] | None = None

    def saw(self, epoch: int, loss: float, model: nn.Module) -> bool:
        """Take note of an epoch, counted from 1; True where training should stop."""
        if loss < self._loss:
            self.epoch, self._loss = epoch, loss
            if self.patience is not None:
                self._weights = copy.deepcopy(model.state_dict())
        return self.patience is not None and epoch - self.epoch >= self.patience

    def restore(self, model: nn.Module) -> None:
        """Give the model its best weights back, where these were kept."""
        if self._weights is not None:
            model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs, in plain types and tensors."""
        return {"epoch": self.epoch, "loss": self._loss, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a stored state."""
        self.epoch, self._loss, self._weights = state["epoch"], state["loss"], state["weights"]
