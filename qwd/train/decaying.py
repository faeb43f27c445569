"""From settings to the decay that they describe: form, schedule, groups."""

from typing import Any

from torch import nn, optim

from qwd import decay
from qwd.config import TrainConfig
from qwd.decay import Form, schedules
from qwd.parsing import assigned
from qwd.registry import FORMS
from qwd.train import optimizers
from qwd.train.rates import rate_factors
from qwd.train.schedules import peak_rate


def form_of(config: TrainConfig) -> Form:
    """The form with the extension that is asked for."""
    form: Form = FORMS.get(config.form)
    for name, asked in (("cautious", config.cautious), ("proximal", config.proximal)):
        if asked:
            return form.options[name]
    return form


def schedule_of(config: TrainConfig, steps_per_epoch: int) -> decay.Schedule:
    """The coefficient over time, in steps."""
    steps, end = config.epochs * steps_per_epoch, config.wd_end
    match config.wd_schedule:
        case "linear":
            schedule = schedules.linear(steps, end)
        case "cosine":
            schedule = schedules.cosine(steps, end)
        case "proportional":
            schedule = schedules.proportional
        case "piecewise":
            points = {float(epoch): float(factor) for epoch, factor in map(assigned, config.wd_at)}
            schedule = schedules.piecewise(
                {round(epoch * steps_per_epoch): factor for epoch, factor in points.items()}
            )
        case _:
            schedule = schedules.constant
    if config.wd_until is not None:
        schedule = schedules.until(round(config.wd_until * steps_per_epoch), schedule)
    return schedule


def decaying_optimizer(
    config: TrainConfig, model: nn.Module, steps_per_epoch: int
) -> optim.Optimizer:
    """The optimizer of ``config`` for a model, its decay attached, at the peak rate."""
    lr = peak_rate(config)
    optimizer = optimizers.build(config, param_groups(config, model), lr)
    decay.attach(optimizer, form_of(config), schedule=schedule_of(config, steps_per_epoch))
    return optimizer


def param_groups(config: TrainConfig, model: nn.Module) -> list[dict[str, Any]]:
    """Who is decayed by how much, at which rate; see `qwd.decay.param_groups`."""
    return decay.param_groups(
        model,
        config.coefficient,
        decay_bias=config.decay_bias,
        decay_norm=config.decay_norm,
        decay_embedding=config.decay_embedding,
        no_decay=config.no_decay,
        factors={pattern: float(factor) for pattern, factor in map(assigned, config.decay)},
        lr_corrected=config.lr_corrected,
        lr=peak_rate(config),
        lr_factors=rate_factors(model, bias=config.bias_lr, depth=config.depth_lr),
    )
