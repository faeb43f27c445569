"""From settings to the data and the model they name."""

from pathlib import Path

import torch
from torch import Tensor, nn

from qwd.checkpoints import read_weights
from qwd.config import TrainConfig
from qwd.errors import InputError
from qwd.quantize.folding import branches_fused
from qwd.train import data, models


def data_for(config: TrainConfig) -> data.Data:
    """The data set of ``config``, in the channels its model needs; see `qwd.train.data.load`."""
    return data.load(
        config.data,
        data_dir=config.data_dir,
        download=config.download,
        mean=config.mean,
        std=config.std,
        image_size=config.image_size,
        channels=models.channels_needed(config.model),
    )


def model_for(config: TrainConfig, inputs: data.Data) -> nn.Module:
    """A freshly initialized model of ``config`` for these inputs; see `qwd.train.models.build`."""
    return models.build(config.model, **inputs.sizes)


def structure_for(config: TrainConfig, inputs: data.Data) -> nn.Module:
    """The network whose weights a run of ``config`` trains, freshly initialized.

    A quantization-aware one trains the kernels that are deployed: branches are fused.
    """
    model = model_for(config, inputs)
    return branches_fused(model) if config.qat else model


def trained_model(
    config: TrainConfig, inputs: data.Data, weights: Path, key: str | None = None
) -> nn.Module:
    """The model of ``config`` with the weights of a file, in evaluation mode, on the CPU.

    Weights of other floating-point types become the model's. Raises InputError where names, shapes
    or kinds of numbers in the file do not fit the model.
    """
    model = structure_for(config, inputs)
    state = read_weights(weights, key)
    for name, own in model.state_dict().items():
        if own.is_floating_point() and name in state:
            what = _lost(state[name], own.dtype)
            if what is not None:
                raise InputError(f"{weights} does not fit --model {config.model}: {name} {what}")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split(":", 1)[-1].split())
        raise InputError(f"{weights} does not fit --model {config.model}: {reason[:300]}") from None
    return model.eval()


def _lost(tensor: Tensor, into: torch.dtype) -> str | None:
    """What of a tensor torch would drop in silence on copying it to floats; None for nothing."""
    if not tensor.is_floating_point():
        kinds = (str(dtype).removeprefix("torch.") for dtype in (tensor.dtype, into))
        return "is {}, expected {}".format(*kinds)
    if tensor.dtype is torch.float64 and into is not torch.float64:
        overflown = tensor.isfinite() & ~tensor.to(into).isfinite()
        if overflown.any():
            largest = tensor[overflown].abs().max().item()
            return f"holds {largest:.4g}, beyond {str(into).removeprefix('torch.')}"
    return None
