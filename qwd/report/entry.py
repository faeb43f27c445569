"""`qwd.report`: the way in from Python."""

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from qwd import parsing
from qwd.checkpoints import models_in
from qwd.errors import UsageError
from qwd.report.accuracies import CALIBRATION_N, Options
from qwd.report.asked import asked_schemes
from qwd.report.build import build
from qwd.report.comparison import compare_models
from qwd.report.figures import ModelReport, Report
from qwd.report.measuring import BN_EPS, WeightOptions
from qwd.report.sensitivity import IMAGES
from qwd.report.series import find_series, in_order
from qwd.report.studies import Studies, studied
from qwd.report.subject import Subject, Subjects
from qwd.report.watching import Watcher
from qwd.setting import checked
from qwd.train.data import Data, load_pair
from qwd.train.devices import device_called
from qwd.train.layout import is_run, runs_below
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
    full: bool | None = None,
    fold: Sequence[str] = (),
    bn_eps: float = BN_EPS,
    matching: str | None = None,
    on_bytes: Callable[[int, int], None] = lambda done, of: None,
) -> Report:
    """Quantize models to 8 bits with scale = (b-a)/255 and report on them, side by side.

    Each source is a network in memory, a run folder, a checkpoint file, a folder of those or of
    folders with runs, as a sweep is: a training's series of checkpoints becomes a trajectory, see
    `qwd.report.series`. ``data`` is the name of a data set, a pair (train, test) of map-style
    datasets, or loaded `Data`; networks need it for accuracies, runs bring their own. ``schemes``
    are names such as ``affine-channel-w4`` (default: all five of the design), ``bits`` the widths
    of their weights; ``backends``, as ``onnx`` or ``ao:qnnpack``, run the schemes with activations
    in place of their usual one. ``given`` are settings as options give them (``model``, ``data``,
    ``image_size``, ...); ``key`` names the state dict where a file has several. ``sensitivity``
    tries every layer on up to ``sensitivity_n`` validation images, and where int8 loses more than
    ``fix`` percentage points there, remedies are tried; ``watcher`` hears how far they are.
    ``on_model`` hears of each finished model, ``on_bytes`` how many bytes of weights are measured,
    of how many.

    ``full`` asks for figures that need order statistics, which weights of more than 100 MB
    otherwise do without; ``matching`` is a regular expression for the names of the weights to
    measure. Of checkpoints without a network ``fold`` states pairs of a layer and its BatchNorm
    (see `qwd.quantize.pairing.pair_norms`), and ``bn_eps`` is the eps of all BatchNorms.

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
    if matching is not None:
        checked("--filter", parsing.patterns, matching)
    weights = WeightOptions(
        bits=tuple(bits),
        full=full,
        fold=tuple(fold),
        bn_eps=checked("--bn-eps", parsing.number(least=0), bn_eps),
        matching=matching,
        on_bytes=on_bytes,
    )
    studies = Studies.read(sensitivity, sensitivity_n, fix, watcher)
    studies.check(sources, given, data is not None or "data" in given)
    subjects = Subjects(given, key, _loaded(data))
    models = []
    # Figures of weights draw nothing, and what makes networks repeatable takes seconds to load.
    networks = [_has_network(source, given) for source in sources]
    bare = not any(networks)
    if all(networks) and (fold or weights.bn_eps != BN_EPS):
        option = f"--fold {fold[0]!r}" if fold else f"--bn-eps {weights.bn_eps:g}"
        raise UsageError(f"{option}: belongs to checkpoints without their network")
    with contextlib.nullcontext() if bare else reproducible(options.device, None):
        for source in sources:
            if isinstance(source, nn.Module):
                subject = _in_memory(source, subjects)
            else:
                subject = subjects.open(Path(source))
            model = studied(build(subject, options, weights), subject, options, studies)
            models.append(model)
            on_model(model)
    models = _distinct(models)
    models = in_order(models, find_series(models))
    return Report(models=tuple(models), comparison=compare_models(models))


def _sources(given: Any) -> list[Source]:
    asked = list(given) if isinstance(given, list | tuple) else [given]
    sources = [source for each in asked for source in _checkpoints(each)]
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


def _checkpoints(source: Source) -> Sequence[Source]:
    """A folder that is no run as the checkpoints or runs in it, anything else as it is."""
    if not isinstance(source, str | Path) or is_run(Path(source)):
        return [source]
    return models_in(Path(source)) or runs_below(Path(source)) or [source]


def _has_network(source: Source, given: Mapping[str, Any]) -> bool:
    return "model" in given or isinstance(source, nn.Module) or is_run(Path(source))


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
