"""`qwd.report`: the way in from Python."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from qwd import parsing
from qwd.errors import UsageError
from qwd.report.accuracies import CALIBRATION_N, Options
from qwd.report.asked import asked_schemes
from qwd.report.build import build
from qwd.report.comparison import compare_models
from qwd.report.figures import ModelReport, Report
from qwd.report.sensitivity import IMAGES
from qwd.report.studies import Studies, studied
from qwd.report.subject import Subject, Subjects
from qwd.report.watching import Watcher
from qwd.setting import checked
from qwd.train.data import Data, load_pair
from qwd.train.devices import device_called
from qwd.train.models import trial
from qwd.train.seeding import reproducible

Source = nn.Module | str | Path


def report(
    model_or_path: Source | Sequence[Source],
    data: str | tuple[Any, Any] | Data | None = None,
    *,
    schemes: str | Sequence[str] | None = None,
    backends: Sequence[str] = (),
    bits: Sequence[int] = (8,),
    calibration_n: int = CALIBRATION_N,
    device: str = "auto",
    key: str | None = None,
    given: Mapping[str, Any] | None = None,
    sensitivity: bool = False,
    sensitivity_n: int = IMAGES,
    fix: float | None = None,
    watcher: Watcher | None = None,
    on_model: Callable[[ModelReport], None] = lambda model: None,
) -> Report:
    """Quantize models to 8 bits with scale = (b-a)/255 and report on them, side by side.

    Each source is a network in memory, a run folder or a checkpoint file. ``data`` is the name of
    a data set, a pair (train, test) of map-style datasets, or loaded `Data`; networks need it for
    accuracies, runs bring their own. ``schemes`` are names such as ``affine-channel-w4``
    (default: all five of the design), ``bits`` the widths of their weights; ``backends``, as
    ``onnx`` or ``ao:qnnpack``, run the schemes with activations in place of their usual one.
    ``given`` are settings as options give them (``model``, ``data``, ``image_size``, ...); ``key``
    names the state dict where a file has several. ``sensitivity`` tries every layer on up to
    ``sensitivity_n`` validation images, and where int8 loses more than ``fix`` percentage points
    there, remedies are tried; ``watcher`` hears how far they are. ``on_model`` hears of each
    finished model.

    Raises UsageError, InputError, and VerificationError when a backend quantized nothing.
    """
    sources = _sources(model_or_path)
    names = [schemes] if isinstance(schemes, str) else schemes
    checked("calibration_n", parsing.integer(least=1), calibration_n)
    options = Options(
        schemes=asked_schemes(names or (), backends, bits),
        calibration_n=calibration_n,
        device=device_called(device),
    )
    given = dict(given or {})
    if isinstance(data, str):
        given["data"] = data
    studies = Studies.read(sensitivity, sensitivity_n, fix, watcher)
    studies.check(sources, given, data is not None or "data" in given)
    subjects = Subjects(given, key, _loaded(data))
    models = []
    with reproducible(options.device, None):
        for source in sources:
            if isinstance(source, nn.Module):
                subject = _in_memory(source, subjects)
            else:
                subject = subjects.open(Path(source))
            model = studied(build(subject, options), subject, options, studies)
            models.append(model)
            on_model(model)
    models = _distinct(models)
    return Report(models=tuple(models), comparison=compare_models(models))


def _sources(given: Any) -> list[Source]:
    sources = list(given) if isinstance(given, list | tuple) else [given]
    if not sources:
        raise UsageError("nothing to report on: give at least one model or path")
    for source in sources:
        if not isinstance(source, nn.Module | str | Path):
            raise UsageError(
                f"{type(source).__name__}: expected a network, or a path to a run or file"
            )
    paths = [Path(s).resolve() for s in sources if isinstance(s, str | Path)]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is given twice: a run compared with itself shows no deviation")
    return sources


def _loaded(data: Any) -> Data | None:
    """Data that were handed over; None for a name, or for none at all."""
    if data is None or isinstance(data, str | Data):
        return data if isinstance(data, Data) else None
    if isinstance(data, tuple) and len(data) == 2:
        return load_pair(*data)
    raise UsageError(f"data {type(data).__name__}: expected a name, (train, test) or Data")


def _in_memory(model: nn.Module, subjects: Subjects) -> Subject:
    name = type(model).__name__
    model = copy.deepcopy(model).cpu().eval()  # the caller's stays as it is, where it is
    data = subjects.data_in_memory()
    if data is not None:
        trial.run(name, model, data.sizes)
    return Subject(name=name, model=model, state=model.state_dict(), data=data)


def _distinct(models: list[ModelReport]) -> list[ModelReport]:
    """Models of the same name are told apart by their paths, else by a number."""
    names = [model.name for model in models]
    if len(set(names)) == len(names):
        return models
    paths = [model.path for model in models]
    if None not in paths and len(set(paths)) == len(paths):
        return [replace(model, name=str(model.path)) for model in models]
    return [replace(model, name=f"{model.name}-{i}") for i, model in enumerate(models, start=1)]
