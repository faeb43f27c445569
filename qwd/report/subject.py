"""What a report is about: a run folder, a checkpoint file, or a network in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from qwd import config as settings
from qwd.checkpoints import read_weights
from qwd.config import TrainConfig
from qwd.errors import InputError, UsageError
from qwd.quantize.folding import weight_names
from qwd.train.data import Data
from qwd.train.planning import planned_dose
from qwd.train.prepare import data_for, trained_model
from qwd.train.run import WEIGHTS, is_run, read_run


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model to report on; without ``model`` there are weight figures alone."""

    name: str
    path: str | None = None
    config: TrainConfig | None = None
    dose: float | None = None
    model: nn.Module | None = None
    state: Mapping[str, Tensor]
    data: Data | None = None

    def weights(self) -> dict[str, Tensor]:
        """The weight tensors a report lists, in the model's or the file's order."""
        source = self.model if self.model is not None else self.state
        tensors = dict(self.model.named_parameters()) if self.model is not None else self.state
        return {name: tensors[name].detach() for name in weight_names(source)}


class Subjects:
    """Opens paths as subjects; a data set that several of them share is loaded once."""

    def __init__(self, given: Mapping[str, Any], key: str | None = None):
        """``given`` holds the settings the user gave (`--model`, `--data`, `--device`, ...)."""
        self.given = dict(given)
        self.key = key
        self._loaded: dict[Any, Data] = {}

    def open(self, path: Path) -> Subject:
        """The subject at ``path``; InputError where there is none that can be read."""
        if path.is_dir():
            return self._run(path)
        return self._checkpoint(path)

    def _run(self, path: Path) -> Subject:
        if not is_run(path):
            raise InputError(f"{path} is no run folder: it has no config.yaml")
        config = self._with_given(read_run(path).config)
        data = self._data(config)
        model = trained_model(config, data, path / WEIGHTS)
        return Subject(
            name=path.resolve().name,
            path=str(path),
            config=config,
            dose=planned_dose(config, len(data.train)),
            model=model,
            state=model.state_dict(),
            data=data,
        )

    def _checkpoint(self, path: Path) -> Subject:
        if ("model" in self.given) != ("data" in self.given):
            raise UsageError(
                "--model and --data go together: a checkpoint's accuracy needs the network and "
                "the images"
            )
        if "model" not in self.given:
            return Subject(name=path.name, path=str(path), state=read_weights(path, self.key))
        config = settings.from_layers(self.given, {})
        data = self._data(config)
        model = trained_model(config, data, path, self.key)
        return Subject(
            name=path.name, path=str(path), model=model, state=model.state_dict(), data=data
        )

    def _with_given(self, config: TrainConfig) -> TrainConfig:
        known = {f.name: f for f in settings.fields()}
        return replace(config, **{n: settings.read(known[n], v) for n, v in self.given.items()})

    def _data(self, config: TrainConfig) -> Data:
        inputs = (config.data, config.data_dir, config.mean, config.std, config.image_size)
        key = (*inputs, config.model.startswith("torchvision:"))
        if key not in self._loaded:
            self._loaded[key] = data_for(config)
        return self._loaded[key]
