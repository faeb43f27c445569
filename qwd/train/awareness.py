"""What quantization-aware training adds to a session; without it, every step here does nothing."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qwd.config import TrainConfig
from qwd.errors import InputError, UsageError, reason
from qwd.quantize import qat
from qwd.quantize.backend import NotQuantizableError
from qwd.quantize.schemes import Scheme
from qwd.train.data import Data
from qwd.train.evaluation import accuracy, logits


def qat_scheme(config: TrainConfig) -> Scheme:
    """The scheme that a quantization-aware run of ``config`` trains for."""
    return Scheme(
        config.weights,  # type: ignore[arg-type]
        config.granularity,
        weight_bits=config.bits,
        activation_bits=8,
        backend="ao",
        qat=True,
    )


def trainable(config: TrainConfig, network: nn.Module, data: Data) -> nn.Module:
    """What computes while training: ``network``, or its quantization-aware twin.

    The twin shares the parameters and statistics of ``network``, which is on its device. Raises
    UsageError where torch.ao cannot carry the network.
    """
    if not config.qat:
        return network
    sizes, device = data.sizes, next(network.parameters()).device
    side = sizes["image_size"]
    example = torch.zeros(2, sizes["in_channels"], side, side, device=device)
    try:
        return qat.prepare(network, qat_scheme(config), example)
    except NotQuantizableError as error:
        raise UsageError(f"--qat: {error}") from error


def restored(
    config: TrainConfig, network: nn.Module, data: Data, grids: Mapping[str, Tensor]
) -> Any:
    """The trained quantization-aware twin of a run's network, its stored grids in place.

    Raises InputError where they do not fit the network.
    """
    twin = trainable(config, network, data)
    try:
        qat.load_state(twin, grids)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"the grids do not fit the network: {reason(error)}") from error
    return twin.eval()


class Awareness:
    """The grids of a session: when they are frozen, what they are worth, how they are stored."""

    def __init__(self, config: TrainConfig, model: nn.Module):
        self.config = config
        self.model: Any = model

    def epoch_begins(self, epoch: int) -> None:
        """Freeze what is to be frozen in this epoch, counted from 0; after ``model.train()``."""
        if self.config.qat:
            ranges, norms = epoch >= self.config.observer_epochs, epoch >= self.config.norm_epochs
            qat.freeze(self.model, ranges=ranges, norms=norms)

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Images that pass inside move no range."""
        with qat.unobserved(self.model) if self.config.qat else contextlib.nullcontext():
            yield

    def row(self, data: Data) -> dict[str, float | None]:
        """The accuracy of a converted copy on the validation split: real int8 kernels."""
        if not self.config.qat:
            return {}
        made = qat.convert(self.model, qat_scheme(self.config))
        outputs = logits(made.network, data.validation, torch.device("cpu"))
        return {
            "int8_validation_accuracy": accuracy(outputs, data.validation.labels),
            **made.sqnr,
        }

    def grids(self) -> dict[str, Tensor]:
        """Ranges and grids by name; none where the training is not quantization-aware."""
        return qat.state(self.model) if self.config.qat else {}
