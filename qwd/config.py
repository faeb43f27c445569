"""The settings of a training run: every default, its meaning and its limits, in one place.

Options of the command line, ``QWD_*`` variables and YAML files are all read through the fields of
`TrainConfig`; a setting added here is an option everywhere.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwd import parsing
from qwd.errors import InputError, UsageError
from qwd.registry import DATASETS, FORMS, MODELS, OPTIMIZERS, SCHEDULES, suggestion

# Variables that are no settings of a run, read where they are used.
OTHER_VARIABLES = {"QWD_CACHE_DIR"}

MACHINE_SETTINGS = ("data_dir", "download", "device", "threads")
"""What is the machine's affair, not the run's: where data lie, and what computes."""


def setting(default: Any, parse: parsing.Parser, help: str, *, shared: bool = False) -> Any:
    """A field with its parser and its line of help; ``shared`` ones are options of reports too."""
    parse = parsing.optional(parse) if default is None else parse
    metadata = {"parse": parse, "help": help, "shared": shared}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a training run computes.

    Raises UsageError, naming the option, where a value is not acceptable.
    """

    model: str = setting(
        "small_cnn",
        parsing.name_in(MODELS, "torchvision", callables=True),
        "a built-in model (`qwd list models`), torchvision:NAME or package.module:callable",
        shared=True,
    )
    data: str = setting(
        "digits",
        parsing.name_in(DATASETS, "imagefolder", callables=True),
        "a data set (`qwd list data`), imagefolder:DIR or package.module:callable",
        shared=True,
    )
    data_dir: str = setting(
        "data", parsing.text, "where downloadable data sets are found", shared=True
    )
    download: bool = setting(
        False,
        parsing.flag,
        "download the data set into --data-dir when it is not there",
        shared=True,
    )
    mean: tuple[float, ...] | None = setting(
        None,
        parsing.list_of(parsing.number()),
        "per-channel mean of the input on the scale 0 to 1; default: the training images'",
        shared=True,
    )
    std: tuple[float, ...] | None = setting(
        None,
        parsing.list_of(parsing.number(above=0)),
        "per-channel standard deviation likewise",
        shared=True,
    )
    image_size: int | None = setting(
        None,
        parsing.integer(least=4, most=4096),
        "resize images to this height and width; default: as they are",
        shared=True,
    )
    augment: str = setting(
        "auto",
        parsing.one_of("auto", "none", "crop", "crop-flip"),
        "random crops (4 px padding) and flips; auto: what is customary for the data set",
    )
    wd: float = setting(1e-4, parsing.number(least=0), "weight decay coefficient")
    form: str = setting(
        None,
        parsing.name_in(FORMS),
        "decay form (`qwd list forms`); default: l2, or decoupled with adamw",
    )
    no_decay: tuple[str, ...] = setting(
        (), parsing.patterns, "exclude parameters whose name matches this regular expression"
    )
    decay_bias: bool = setting(False, parsing.flag, "decay biases too")
    decay_norm: bool = setting(False, parsing.flag, "decay normalisation parameters too")
    optimizer: str = setting(
        "sgd", parsing.name_in(OPTIMIZERS), "optimizer (`qwd list optimizers`)"
    )
    lr: float = setting(
        None, parsing.number(above=0), "peak learning rate; default: 0.1 for sgd, 0.001 otherwise"
    )
    momentum: float = setting(
        0.9, parsing.number(least=0, most=0.9999), "momentum of SGD, beta1 of Adam and AdamW"
    )
    lr_schedule: str = setting(
        "cosine", parsing.name_in(SCHEDULES), "learning-rate schedule (`qwd list schedules`)"
    )
    warmup: float = setting(0.0, parsing.number(least=0), "epochs of linear warm-up")
    lr_step: tuple[float, ...] = setting(
        (0.5, 0.75),
        parsing.list_of(parsing.number(above=0, most=1), unique=True),
        "schedule step: where the rate falls, as fractions of the epochs",
    )
    lr_gamma: float = setting(
        0.1, parsing.number(above=0, most=1), "schedule step: factor of each fall"
    )
    epochs: int = setting(
        60, parsing.integer(least=1, most=100_000), "passes over the training data"
    )
    batch_size: int = setting(32, parsing.integer(least=1, most=65_536), "images per step")
    seed: int = setting(
        0, parsing.integer(least=0), "seed of initialization, data order and augmentation"
    )
    amp: bool = setting(False, parsing.flag, "bfloat16 automatic mixed precision, float32 weights")
    device: str = setting(
        "auto", parsing.text, "auto (a GPU where there is one), cpu, cuda or cuda:N", shared=True
    )
    threads: int | None = setting(
        None,
        parsing.integer(least=1, most=1024),
        "CPU threads; default: as many as cores",
        shared=True,
    )

    def __post_init__(self) -> None:
        for field in fields():
            object.__setattr__(self, field.name, read(field, getattr(self, field.name)))
        fill = {
            "form": "decoupled" if self.optimizer == "adamw" else "l2",
            "lr": 0.1 if self.optimizer == "sgd" else 1e-3,
        }
        for name, value in fill.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.warmup >= self.epochs:
            raise UsageError(f"--warmup {self.warmup:g}: must be less than --epochs {self.epochs}")
        if (self.mean is None) != (self.std is None):
            raise UsageError("--mean and --std go together: give both or neither")
        if self.mean and self.std and len(self.mean) != len(self.std):
            raise UsageError(
                f"--mean has {len(self.mean)} values, --std {len(self.std)}: one per channel each"
            )

    def to_dict(self) -> dict[str, Any]:
        """The settings as YAML and JSON hold them: tuples as lists."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def to_yaml(self) -> str:
        """The settings as a file that ``--config`` reads back to the same ones."""
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def fields(*, shared_only: bool = False) -> list[dataclasses.Field[Any]]:
    """The settings in the order of their declaration."""
    every = dataclasses.fields(TrainConfig)
    return [f for f in every if f.metadata["shared"] or not shared_only]


def option_name(field_name: str) -> str:
    """``lr_schedule`` as the option ``--lr-schedule``."""
    return "--" + field_name.replace("_", "-")


def variable_name(field_name: str) -> str:
    """``lr_schedule`` as the variable ``QWD_LR_SCHEDULE``."""
    return "QWD_" + field_name.upper()


def read(field: dataclasses.Field[Any], raw: Any) -> Any:
    """The checked value of one setting; a UsageError names option, value and what is right."""
    return checked(option_name(field.name), field.metadata["parse"], raw)


def read_all(raw: Mapping[str, Any], label: Callable[[str], str] | None = None) -> dict[str, Any]:
    """The checked values of some settings by name; UsageError as `read`, or for unknown names.

    ``label`` is what errors call a setting: its option, where nothing else is given.
    """
    label = label or option_name
    known = {f.name: f for f in fields()}
    for name in raw:
        if name not in known:
            raise UsageError(f"unknown setting {name!r}: {suggestion(str(name), known)}")
    return {
        name: checked(label(name), known[name].metadata["parse"], value)
        for name, value in raw.items()
    }


def checked(option: str, parse: parsing.Parser, raw: Any) -> Any:
    """``parse(raw)``, or a UsageError that names the option, the value and what would be right."""
    try:
        return parse(raw)
    except ValueError as error:
        raw = raw[0] if isinstance(raw, tuple) and len(raw) == 1 else raw
        raise UsageError(f"{option} {raw!r}: expected {error}".replace("\n", " ")) from None


def from_layers(
    options: Mapping[str, Any],
    environment: Mapping[str, str],
    file: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """Merge options over ``QWD_*`` variables over a file's settings over the defaults.

    Absent options are left out or None. An unknown key in any layer is a UsageError with the
    nearest valid name.
    """
    values: dict[str, Any] = {}
    for layer, label in (
        (dict(file or {}), lambda name: f"{name} in the file"),
        (environment_settings(environment), variable_name),
        (dict(options), option_name),
    ):
        values |= read_all({n: raw for n, raw in layer.items() if raw is not None}, label)
    return TrainConfig(**values)


def environment_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that ``QWD_*`` variables give; an unknown variable is a UsageError."""
    known = {variable_name(f.name): f.name for f in fields()}
    found = {}
    for variable, value in environment.items():
        if not variable.startswith("QWD_") or variable in OTHER_VARIABLES:
            continue
        if variable not in known:
            raise UsageError(f"unknown variable {variable}: {suggestion(variable, known)}")
        found[known[variable]] = value
    return found


def short(value: float) -> str:
    """A coefficient as people write it: 0.0001 is ``1e-4``."""
    mantissa, _, exponent = f"{value:e}".partition("e")
    digits = mantissa.rstrip("0").rstrip(".")
    return f"{digits}e{int(exponent)}" if value and int(exponent) < -2 else f"{value:g}"


def _strict(yaml: Any) -> Any:
    """PyYAML's safe loader, which takes the last of two equal keys, refusing them instead."""

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise yaml.constructor.ConstructorError(None, None, f"{twice!r} is given twice")
            return super().construct_mapping(node, deep)

    return Strict


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; InputError when it cannot be read or is no mapping."""
    import yaml

    if not Path(path).is_file():
        raise InputError(f"cannot read {path}: it is no file")
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_strict(yaml))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold settings as `name: value` lines")
    return content
