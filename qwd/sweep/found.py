"""What there is of a cell on disk: nothing, a part, weights, a report, or a divergence."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwd.config import MACHINE_SETTINGS, TrainConfig
from qwd.errors import InputError, UsageError
from qwd.files import write_text
from qwd.report.figures import ModelReport, Report
from qwd.report.load import parse, read_as
from qwd.setting import option_name
from qwd.sweep.layout import DIVERGED
from qwd.train.layout import REPORT, WEIGHTS, is_run


@dataclass(frozen=True, kw_only=True)
class Found:
    """A cell on disk."""

    model: ModelReport | None = None
    """its report, which is the end of the work on it"""
    diverged: str | None = None
    """the error, which is a result too"""
    problem: str | None = None
    """what cannot be read"""
    begun: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.model is not None or self.diverged is not None


def find(folder: Path, config: TrainConfig) -> Found:
    """What ``folder`` holds of the cell with these settings; it need not exist.

    Raises UsageError where it holds a result of other settings.
    """
    begun = is_run(folder)
    try:
        if (error := _divergence(folder, config)) is not None:
            return Found(diverged=error, begun=begun)
        check_weights(folder)
        return Found(model=_report(folder, config), begun=begun)
    except InputError as error:
        return Found(problem=str(error), begun=begun)


def check_weights(folder: Path) -> None:
    """InputError where there is a file of weights that is not as it was written."""
    from qwd.checkpoints.safetensors_file import read_safetensors

    if (folder / WEIGHTS).exists():
        read_safetensors(folder / WEIGHTS)


def write_divergence(folder: Path, config: TrainConfig, error: str) -> None:
    """Keep a divergence as the result of a cell."""
    content = {"error": error, "config": config.to_dict()}
    write_text(folder / DIVERGED, json.dumps(content, indent=2) + "\n")


def _divergence(folder: Path, config: TrainConfig) -> str | None:
    try:
        content = parse((folder / DIVERGED).read_bytes())
        error, settings = content["error"], content["config"]
        if not isinstance(error, str) or not isinstance(settings, dict):
            raise ValueError
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (InputError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {folder / DIVERGED}") from error
    _check_settings(settings, config, folder)
    return error


def _report(folder: Path, config: TrainConfig) -> ModelReport | None:
    """The report of a trained cell, None where there is none.

    The sweep wrote it itself: it is read without the schema, which takes five times as long.
    """
    if not (folder / WEIGHTS).is_file():
        return None
    path = folder / REPORT
    try:
        found: Report = read_as(Report, parse(path.read_bytes()))
        (model,) = found.models
        settings = dict(model.config or {})
    except FileNotFoundError:
        return None
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"cannot read {path}: it is no report of one model") from error
    _check_settings(settings, config, folder)
    return model


def _check_settings(stored: Mapping[str, Any], config: TrainConfig, folder: Path) -> None:
    """UsageError where a result is that of other settings; it is never thrown away for that."""
    for name, value in config.to_dict().items():
        # Normalisation that is not asked for is the one computed when the run began.
        computed = name in ("mean", "std") and value is None
        if name in MACHINE_SETTINGS or computed or name not in stored:
            continue
        if stored[name] != value:
            raise UsageError(
                f"{folder} was trained with {option_name(name)} {stored[name]!r}, the sweep asks "
                f"for {value!r}; `--cell {folder.name}` trains it again"
            )
