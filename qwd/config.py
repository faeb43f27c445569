"""The settings of a training run: every default, its meaning and its limits, in one place.

Options of the command line, ``QWD_*`` variables and YAML files are all read through the fields of
`TrainConfig`; a setting added here is an option everywhere.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from qwd import parsing
from qwd.errors import UsageError
from qwd.registry import DATASETS, FORMS, MODELS, OPTIMIZERS, SCHEDULES
from qwd.setting import Only, applied, read, setting

MACHINE_SETTINGS = ("data_dir", "download", "device", "threads")
"""What is the machine's affair, not the run's: where data lie, and what computes."""

DECAY_SETTINGS = (
    *("wd", "form", "cautious", "lr_corrected", "proximal", "no_decay", "decay", "decay_bias"),
    *("decay_norm", "decay_embedding", "wd_schedule", "wd_end", "wd_at", "wd_until"),
)
"""What describes the decay: all that may differ between runs that are read against each other."""


def _for_schedule(*names: str, default: Any) -> Only:
    return Only("lr_schedule", names, default, SCHEDULES)


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
    # Weight decay.
    wd: float = setting(1e-4, parsing.number(least=0), "weight decay coefficient")
    form: str = setting(
        None,
        parsing.name_in(FORMS),
        "decay form (`qwd list forms`); default: l2, or decoupled with adamw",
    )
    cautious: bool = setting(
        False,
        parsing.flag,
        "decay only where the step shrinks the weight anyway",
        only=Only("form", ("decoupled",), False),
    )
    lr_corrected: str = setting(
        None,
        parsing.text,
        "AdamC's lr_t^2 / lr_max in place of lr_t: `auto` for weights followed by normalisation, "
        "or a regular expression over names",
        only=Only("form", ("decoupled",), None),
    )
    proximal: bool = setting(
        False,
        parsing.flag,
        "soft-threshold after the step, which gives exact zeros",
        only=Only("form", ("l1",), False),
    )
    no_decay: tuple[str, ...] = setting(
        (),
        parsing.patterns,
        "exclude parameters whose name matches this regular expression",
        repeatable="REGEX",
    )
    decay: tuple[str, ...] = setting(
        (),
        parsing.assignments(
            "PATTERN=VALUE, a regular expression and a factor of at least 0",
            parsing.patterns,
            parsing.number(least=0),
        ),
        "multiply the coefficient of matching parameters, excluded ones included; PATTERN is a "
        "regular expression over names, or @bias, @norm, @embedding, @depthwise, @weight",
        repeatable="PATTERN=VALUE",
    )
    decay_bias: bool = setting(False, parsing.flag, "decay biases too")
    decay_norm: bool = setting(False, parsing.flag, "decay normalisation parameters too")
    decay_embedding: bool = setting(True, parsing.flag, "decay embeddings too")
    wd_schedule: str = setting(
        "constant",
        parsing.one_of("constant", "linear", "cosine", "proportional", "piecewise"),
        "the coefficient over time: constant, linear or cosine to --wd-end, proportional to the "
        "learning rate, or piecewise by --wd-at",
    )
    wd_end: float = setting(
        None,
        parsing.number(least=0),
        "factor of --wd at the last step",
        only=Only("wd_schedule", ("linear", "cosine"), 0.0),
    )
    wd_at: tuple[str, ...] = setting(
        None,
        parsing.assignments(
            "EPOCH=FACTOR entries with commas, for example 0=1,30=0.1",
            parsing.number(least=0),
            parsing.number(least=0),
            commas=True,
        ),
        "EPOCH=FACTOR,...: factor of --wd from each epoch on, 1 before the first",
        only=Only("wd_schedule", ("piecewise",), None),
    )
    wd_until: float | None = setting(
        None, parsing.number(above=0), "epochs after which decay is off"
    )
    # Optimizer and learning rate.
    optimizer: str = setting(
        "sgd",
        parsing.name_in(OPTIMIZERS, callables=True),
        "optimizer (`qwd list optimizers`), or package.module:Class, as torch.optim:NAdam",
    )
    optimizer_option: tuple[str, ...] = setting(
        (),
        parsing.assignments(
            "KEY=VALUE, an argument of the optimizer's class", parsing.text, parsing.text
        ),
        "an argument of the optimizer, as eps=1e-6",
        repeatable="KEY=VALUE",
    )
    momentum: float = setting(
        None,
        parsing.number(least=0, most=0.9999),
        "momentum of SGD and RMSprop, beta1 of the Adam family; default: 0.9, or the class's own",
    )
    nesterov: bool = setting(
        False,
        parsing.flag,
        "Nesterov's momentum",
        only=Only("optimizer", ("sgd",), False, OPTIMIZERS),
    )
    lr: float = setting(
        None, parsing.number(above=0), "peak learning rate; default: 0.1 for sgd, 0.001 otherwise"
    )
    base_batch_size: int | None = setting(
        None,
        parsing.integer(least=1),
        "the batch size that --lr is for: the rate is scaled in proportion (Goyal et al. 2017)",
    )
    bias_lr: float = setting(
        1.0, parsing.number(above=0), "factor of the learning rate of biases; Caffe's is 2"
    )
    depth_lr: float = setting(
        1.0,
        parsing.number(above=0, most=1),
        "factor of the first layer's learning rate; those between rise to the last's evenly",
    )
    lr_schedule: str = setting(
        "cosine", parsing.name_in(SCHEDULES), "learning-rate schedule (`qwd list schedules`)"
    )
    warmup: float = setting(0.0, parsing.number(least=0), "epochs of linear warm-up")
    lr_min: float = setting(
        None,
        parsing.number(least=0),
        "rate at the end",
        only=_for_schedule("cosine", default=0.0),
    )
    lr_every: float = setting(
        None,
        parsing.number(above=0),
        "epochs from one fall to the next; default: a third of --epochs",
        only=_for_schedule("step", default=None),
    )
    lr_step: tuple[float, ...] = setting(
        None,
        parsing.list_of(parsing.number(above=0), unique=True),
        "where the rate falls: below 1 fractions of --epochs, else epochs",
        only=_for_schedule("multistep", default=(0.5, 0.75)),
    )
    lr_gamma: float = setting(
        None,
        parsing.number(above=0, most=1),
        "factor of each fall",
        only=_for_schedule("step", "multistep", "plateau", default=0.1),
    )
    lr_rate: float = setting(
        None,
        parsing.number(above=0),
        "k, per epoch, in exp(-k t) or 1 / (1 + k t)",
        only=_for_schedule("exponential", "inverse", default=0.05),
    )
    lr_power: float = setting(
        None,
        parsing.number(above=0),
        "p in (1 - t / T)^p",
        only=_for_schedule("polynomial", default=1.0),
    )
    lr_patience: int = setting(
        None,
        parsing.integer(least=1),
        "epochs without a lower validation loss after which the rate falls",
        only=_for_schedule("plateau", default=5),
    )
    lr_peak_at: float = setting(
        None,
        parsing.number(above=0, most=0.99),
        "where the peak is, as a fraction of the training",
        only=_for_schedule("onecycle", default=0.3),
    )
    # Length, batches, machine.
    epochs: int = setting(
        60, parsing.integer(least=1, most=100_000), "passes over the training data"
    )
    early_stop: int | None = setting(
        None,
        parsing.integer(least=1),
        "stop after this many epochs without a lower validation loss, and keep the best weights",
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
        name = self.optimizer.rpartition(":")[2].lower()
        fill = {
            "form": "decoupled" if name == "adamw" else "l2",
            "lr": 0.1 if name == "sgd" else 1e-3,
            "momentum": 0.9 if OPTIMIZERS.ships(self.optimizer) else None,
        }
        for name, value in fill.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for field in fields():
            object.__setattr__(self, field.name, applied(field, self))
        if self.wd_schedule == "piecewise" and not self.wd_at:
            raise UsageError("--wd-schedule piecewise: needs --wd-at EPOCH=FACTOR,...")
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
