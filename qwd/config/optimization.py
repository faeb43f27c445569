"""Settings of the optimizer and its learning rate."""

from dataclasses import dataclass
from typing import Any

from qwd import parsing
from qwd.registry import OPTIMIZERS, SCHEDULES
from qwd.setting import Only, setting


def _for_schedule(*names: str, default: Any) -> Only:
    return Only("lr_schedule", names, default, SCHEDULES)


@dataclass(frozen=True, kw_only=True)
class OptimizationSettings:
    """The optimizer, and the learning rate over time."""

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
        None,
        parsing.number(above=0),
        "peak learning rate; default: 0.1 for sgd, 0.001 otherwise, a tenth after --from",
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
