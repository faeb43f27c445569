"""A run folder: how it is written and read; see `qwd.train.layout` for what is in it."""

import csv
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qwd import layers
from qwd.checkpoints import read_pickle, read_weights, write_weights
from qwd.config import TrainConfig
from qwd.decay import Audit
from qwd.errors import InputError, UsageError, reason
from qwd.files import write_atomically, write_text
from qwd.train.layout import (
    CHECKPOINT,
    CONFIG,
    DECAY,
    ENVIRONMENT,
    GRIDS,
    METRICS,
    WEIGHTS,
    is_finished,
    is_run,
)
from qwd.train.prepare import data_for, trained_model


@dataclass(frozen=True)
class Run:
    """A finished training run on disk."""

    path: Path
    config: TrainConfig
    metrics: tuple[dict[str, float | None], ...]
    """one row per epoch, as in ``metrics.csv``"""

    @property
    def dose(self) -> float | None:
        """D that the stored weights were given; None where the form or the file has none."""
        best = self.metrics[-1].get("best_epoch") if self.config.early_stop else None
        return self.metrics[int(best or len(self.metrics)) - 1].get("dose")

    def model(self) -> nn.Module:
        """The trained network, in evaluation mode, on the CPU."""
        return trained_model(self.config, data_for(self.config), self.path / WEIGHTS)

    def __str__(self) -> str:
        last = self.metrics[-1]
        shown = ", ".join(f"{k} {v:.4g}" for k, v in last.items() if v is not None and ":" not in k)
        return f"{self.path}: {shown}"


def read_config(path: Path) -> TrainConfig:
    """The settings of the run in ``path``; InputError where they cannot be read."""
    if not is_run(path):
        raise InputError(f"{path} is no run folder: it has no {CONFIG}")
    try:
        return layers.from_layers({}, {}, layers.load_yaml(path / CONFIG))
    except UsageError as error:
        raise InputError(f"{path / CONFIG}: {error}") from error


def read_run(path: Path) -> Run:
    """The finished run in ``path``; InputError where it is none, or unfinished."""
    config = read_config(path)
    if not is_finished(path):
        raise InputError(
            f"{path} is unfinished: it has no {WEIGHTS}; `qwd train --resume --out {path}` goes on"
        )
    try:
        with open(path / METRICS, encoding="utf-8", newline="") as file:
            rows = [
                {name: float(value) if value else None for name, value in row.items()}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise InputError(f"cannot read {path / METRICS}: {reason(error)}") from error
    if not rows:
        raise InputError(f"{path / METRICS} holds no epoch")
    best = rows[-1].get("best_epoch")
    if config.early_stop and not (best is None or best in range(1, len(rows) + 1)):
        raise InputError(f"{path / METRICS}: best_epoch {best} is none of its {len(rows)} epochs")
    return Run(path, config, tuple(rows))


def write_start(
    path: Path,
    config: TrainConfig,
    device: torch.device,
    audit: Audit,
    *,
    compiled: bool = False,
    replicas: int = 1,
) -> None:
    """Begin a run folder: its settings, its environment, and who is decayed by how much.

    ``compiled``: whether its step is; ``replicas`` is how many runs are trained in one program.
    """
    write_text(path / CONFIG, config.to_yaml())
    write_text(path / DECAY, json.dumps(audit.to_dict(), indent=2) + "\n")
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    environment = {
        "versions": versions,
        "platform": platform.platform(),
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "compiled": compiled,
        "replicas": replicas,
    }
    write_text(path / ENVIRONMENT, json.dumps(environment, indent=2) + "\n")


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the state to resume from."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path / CHECKPOINT, lambda file: file.write_bytes(buffer.getvalue()))


def write_metrics(path: Path, rows: Sequence[dict[str, float | None]]) -> None:
    """Replace ``metrics.csv`` by these rows, one per epoch."""
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else repr(v) for k, v in row.items()} for row in rows)
    write_text(path / METRICS, table.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state to resume from, or None before the first epoch ended."""
    return read_pickle(path / CHECKPOINT) if (path / CHECKPOINT).is_file() else None


def write_model(path: Path, model: nn.Module) -> None:
    """Store weights in the file ``path``, a tensor of several names under each of them."""
    _write_tensors(path, model.state_dict())


def write_grids(path: Path, grids: Mapping[str, Tensor]) -> None:
    """Store the ranges and grids of a quantization-aware training; see `qwd.quantize.qat`."""
    _write_tensors(path / GRIDS, grids)


def read_grids(path: Path) -> dict[str, Tensor]:
    """The ranges and grids of the run in ``path``; InputError where they cannot be read."""
    return read_weights(path / GRIDS)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    write_atomically(path, lambda file: write_weights(file, tensors))
