"""From the name of a device to the device."""

import contextlib
from collections.abc import Iterator

import torch

from qwd.config import TrainConfig
from qwd.errors import UsageError


def device_called(name: str) -> torch.device:
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``; UsageError otherwise."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name!r}: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices"
        )
    return device


def without_tf32() -> contextlib.AbstractContextManager[None]:
    """Convolutions inside are float32 on a GPU too, and the same at every call."""
    # Left to itself, `flags` turns cuDNN off.
    on = torch.backends.cudnn.enabled
    return torch.backends.cudnn.flags(enabled=on, deterministic=True, allow_tf32=False)


@contextlib.contextmanager
def enough_memory(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """A device that runs out of memory inside is a UsageError that says what helps."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"--batch-size {config.batch_size}: out of memory on {device}; choose a smaller one"
        ) from error
