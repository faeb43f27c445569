"""Names to things: every part of qwd that can be extended, and what ships with it.

Built-in entries are declared here as ``module:attribute`` paths, so that a name can be checked
and listed without importing torch. Packages add entries through entry points (group
``qwd.models`` and so on), programs through the decorator::

    @MODELS.register("my_net")
    def my_net(*, in_channels, image_size, num_classes): ...
"""

import difflib
import importlib
import importlib.metadata
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from qwd.errors import UsageError

T = TypeVar("T")


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of an error line for an unknown name: the nearest known one, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def resolve(path: str) -> Any:
    """The object at ``package.module:attribute``.

    Raises ImportError, AttributeError or ValueError as Python does.
    """
    module, _, attribute = path.partition(":")
    thing: Any = importlib.import_module(module)
    for part in attribute.split("."):
        thing = getattr(thing, part)
    return thing


class Registry:
    """One kind of extension point.

    ``kind`` is the word error messages use; ``builtin`` maps a name to ``module:attribute``.
    """

    def __init__(self, kind: str, group: str, builtin: dict[str, str]):
        self.kind = kind
        self.group = group
        self._entries: dict[str, Any] = dict(builtin)
        self._own = frozenset(builtin)
        self._installed: dict[str, Any] | None = None

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds a function or class under ``name``; a taken name is a UsageError."""

        def add(thing: T) -> T:
            if name in self._all():
                raise UsageError(f"{self.kind} {name!r} is registered already")
            self._entries[name] = thing
            return thing

        return add

    def names(self) -> list[str]:
        """Every name, built-in ones first."""
        return list(self._all())

    def __contains__(self, name: str) -> bool:
        return name in self._entries or name in self._all()

    def ships(self, name: str) -> bool:
        """Whether the entry called ``name`` comes with qwd."""
        return name in self._own

    def check(self, name: str) -> str:
        """``name`` itself if it is known, else a UsageError that names the nearest one."""
        if name not in self:
            raise UsageError(f"unknown {self.kind} {name!r}: {suggestion(name, self.names())}")
        return name

    def get(self, name: str) -> Any:
        """The entry called ``name``, imported on first use."""
        self.check(name)
        entry = self._all()[name]
        if isinstance(entry, str):
            entry = resolve(entry)
        elif isinstance(entry, importlib.metadata.EntryPoint):
            entry = entry.load()
        self._entries[name] = entry
        return entry

    def _all(self) -> dict[str, Any]:
        if self._installed is None:  # reading the metadata of every installed package is slow
            found = importlib.metadata.entry_points(group=self.group)
            self._installed = {entry.name: entry for entry in found}
        return {
            **self._entries,
            **{n: e for n, e in self._installed.items() if n not in self._entries},
        }


MODELS = Registry(
    "model",
    "qwd.models",
    {
        "mlp": "qwd.train.models.mlp:mlp",
        "small_cnn": "qwd.train.models.cnn:small_cnn",
        "resnet20": "qwd.train.models.resnet:resnet20",
        "resnet32": "qwd.train.models.resnet:resnet32",
        "resnet44": "qwd.train.models.resnet:resnet44",
        "resnet56": "qwd.train.models.resnet:resnet56",
        "mobilenet": "qwd.train.models.mobilenet:mobilenet",
        "repvgg": "qwd.train.models.repvgg:repvgg",
        "vit": "qwd.train.models.vit:vit",
    },
)
DATASETS = Registry(
    "data set",
    "qwd.datasets",
    {
        "digits": "qwd.train.data.digits:digits",
        "mnist": "qwd.train.data.downloadable:mnist",
        "fashion-mnist": "qwd.train.data.downloadable:fashion_mnist",
        "cifar10": "qwd.train.data.downloadable:cifar10",
        "cifar100": "qwd.train.data.downloadable:cifar100",
    },
)
FORMS = Registry(
    "decay form",
    "qwd.decay_forms",
    {
        "l2": "qwd.decay.forms:l2",
        "decoupled": "qwd.decay.forms:decoupled",
        "independent": "qwd.decay.forms:independent",
        "l1": "qwd.decay.forms:l1",
        "none": "qwd.decay.forms:none",
    },
)
OPTIMIZERS = Registry(
    "optimizer",
    "qwd.optimizers",
    {
        "sgd": "qwd.train.optimizers:sgd",
        "adam": "qwd.train.optimizers:adam",
        "adamw": "qwd.train.optimizers:adamw",
        "rmsprop": "qwd.train.optimizers:rmsprop",
    },
)
SCHEDULES = Registry(
    "learning-rate schedule",
    "qwd.lr_schedules",
    {
        "constant": "qwd.train.schedules:constant",
        "cosine": "qwd.train.schedules:cosine",
        "step": "qwd.train.schedules:step",
        "multistep": "qwd.train.schedules:multistep",
        "exponential": "qwd.train.schedules:exponential",
        "inverse": "qwd.train.schedules:inverse",
        "polynomial": "qwd.train.schedules:polynomial",
        "plateau": "qwd.train.schedules:plateau",
        "onecycle": "qwd.train.schedules:onecycle",
    },
)
BACKENDS = Registry(
    "quantization backend",
    "qwd.backends",
    {
        "weights": "qwd.quantize.weights:WeightsOnly",
        "ao": "qwd.quantize.ao:TorchAO",
        "onnx": "qwd.quantize.onnx:OnnxRuntime",
        "pt2e": "qwd.quantize.pt2e:PT2E",
        "simulated": "qwd.quantize.simulated:Simulated",
    },
)
OUTLIER_RULES = Registry(
    "outlier rule",
    "qwd.outlier_rules",
    {
        "sigma>3": "qwd.quantize.outliers:sigma3",
        "sigma>4": "qwd.quantize.outliers:sigma4",
        "sigma>6": "qwd.quantize.outliers:sigma6",
        "iqr>1.5": "qwd.quantize.outliers:iqr",
        "mad>3.5": "qwd.quantize.outliers:mad",
    },
)
RENDERERS = Registry(
    "renderer",
    "qwd.renderers",
    {
        "json": "qwd.report.render.json:render",
        "csv": "qwd.report.render.csv:render",
        "md": "qwd.report.render.markdown:render",
        "html": "qwd.report.render.html:render",
    },
)
EXECUTORS = Registry(
    "executor",
    "qwd.executors",
    {"processes": "qwd.sweep.processes:Processes", "fused": "qwd.sweep.fused:Fused"},
)
KINDS = {
    "models": MODELS,
    "data": DATASETS,
    "forms": FORMS,
    "optimizers": OPTIMIZERS,
    "schedules": SCHEDULES,
    "backends": BACKENDS,
    "outliers": OUTLIER_RULES,
    "renderers": RENDERERS,
    "executors": EXECUTORS,
}
