"""What a report is about: a run folder, a checkpoint file, or a network in memory."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from qwd import layers
from qwd.checkpoints import ENDINGS, models_in, read_weights
from qwd.config import TrainConfig
from qwd.errors import InputError, UsageError
from qwd.quantize.folding import weight_names
from qwd.report.figures import DecayAudit
from qwd.report.load import load_audit
from qwd.train.awareness import restored
from qwd.train.data import Data
from qwd.train.layout import WEIGHTS, is_run
from qwd.train.models import channels_needed
from qwd.train.prepare import data_for, trained_model
from qwd.train.run import read_grids, read_run


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model to report on; without ``model`` there are weight figures alone."""

    name: str
    path: str | None = None
    config: TrainConfig | None = None
    dose: float | None = None
    decay: DecayAudit | None = None
    model: nn.Module | None = None
    twin: nn.Module | None = None
    """the quantization-aware twin that was trained in the model's place"""
    state: Mapping[str, Tensor]
    data: Data | None = None

    def weights(self) -> dict[str, Tensor]:
        """The weight tensors a report lists, in the model's or the file's order."""
        source = self.model if self.model is not None else self.state
        tensors = dict(self.model.named_parameters()) if self.model is not None else self.state
        return {name: tensors[name].detach() for name in weight_names(source)}


class Subjects:
    """Opens paths as subjects; a data set that several of them share is loaded once."""

    def __init__(self, given: Mapping[str, Any], key: str | None = None, data: Data | None = None):
        """``given``: settings that replace a run's own, or name a checkpoint's model and data.

        ``key`` names the state dict where a file has several; ``data`` replaces every subject's.
        """
        self.given = layers.read_all(given)
        self.key = key
        self.data = data
        self._loaded: dict[Any, Data] = {}

    def open(self, path: Path) -> Subject:
        """The subject at ``path``; InputError where there is none that can be read."""
        if is_run(path):
            return self._run(path)
        if os.path.isdir(path) and (found := models_in(path)) != [path]:
            inside = (
                f"but holds others, as {found[0]}: name one"
                if found
                else f"and holds no checkpoint ({', '.join(ENDINGS)})"
            )
            raise InputError(f"{path} is no run folder, {inside}")
        return self._checkpoint(path)

    def data_in_memory(self) -> Data | None:
        """The data for networks in memory: those given, None where none are."""
        return self._data(TrainConfig(**self.given)) if self._has_data else None

    @property
    def _has_data(self) -> bool:
        return self.data is not None or "data" in self.given

    def _run(self, path: Path) -> Subject:
        run = read_run(path)
        trained = run.config
        config = self._with_given(trained)
        data = self._data(config)
        model = trained_model(config, data, path / WEIGHTS)
        return Subject(
            name=path.resolve().name,
            path=str(path),
            config=trained,
            dose=run.dose,
            decay=load_audit(path),
            model=model,
            twin=restored(trained, model, data, read_grids(path)) if trained.qat else None,
            state=model.state_dict(),
            data=data,
        )

    def _checkpoint(self, path: Path) -> Subject:
        if ("model" in self.given) != self._has_data:
            raise UsageError(
                "--model and --data go together: a checkpoint's accuracy needs the network and "
                "the images"
            )
        if not self._has_data:
            return Subject(name=path.name, path=str(path), state=read_weights(path, self.key))
        config = TrainConfig(**self.given)
        data = self._data(config)
        model = trained_model(config, data, path, self.key)
        return Subject(
            name=path.name, path=str(path), model=model, state=model.state_dict(), data=data
        )

    def _with_given(self, config: TrainConfig) -> TrainConfig:
        changes = dict(self.given)
        if changes.get("data", config.data) != config.data:
            # Sizes and normalisation belong to the data that they were found on.
            changes = {"mean": None, "std": None, "image_size": None, **changes}
        return replace(config, **changes)

    def _data(self, config: TrainConfig) -> Data:
        if self.data is not None:
            return self.data
        inputs = (config.data, config.data_dir, config.mean, config.std, config.image_size)
        key = (*inputs, channels_needed(config.model))
        if key not in self._loaded:
            self._loaded[key] = data_for(config)
        return self._loaded[key]
