"""From settings to the decay that they describe: form, schedule, groups."""

from typing import Any

import torch
from torch import nn, optim

from qwd import decay
from qwd.config import TrainConfig
from qwd.decay import Form, schedules
from qwd.decay.clone import NotCopyableError
from qwd.decay.probe import stepped
from qwd.errors import UsageError, VerificationError
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
    """The coefficient over time, in steps.

    Raises UsageError, naming the option, for epochs that are not in the training or are given
    twice, and where the schedule leaves nothing of a decay that is asked for.
    """
    steps, end = config.epochs * steps_per_epoch, config.wd_end
    factors = {0: 1.0}
    match config.wd_schedule:
        case "linear":
            schedule = schedules.linear(steps, end)
        case "cosine":
            schedule = schedules.cosine(steps, end)
        case "proportional":
            schedule = schedules.proportional
        case "piecewise":
            at = _piecewise(config, steps_per_epoch)
            factors |= at
            schedule = schedules.piecewise(at)
        case _:
            schedule = schedules.constant
    last = steps
    if config.wd_until is not None:
        if config.wd_until > config.epochs:
            raise UsageError(
                f"--wd-until {config.wd_until:g}: must be at most --epochs {config.epochs}"
            )
        last = round(config.wd_until * steps_per_epoch)
        schedule = schedules.until(last, schedule)
    acts = config.coefficient > 0 and form_of(config).acts
    if acts and not any(factor for step, factor in factors.items() if step < last):
        given = {"--wd-at": ",".join(config.wd_at or ()), "--wd-until": config.wd_until}
        option = " ".join(f"{name} {value}" for name, value in given.items() if value)
        raise UsageError(
            f"{option}: leaves no step to --wd {config.coefficient:g}; an epoch has "
            f"{steps_per_epoch} steps. For no decay use --wd 0"
        )
    return schedule


def _piecewise(config: TrainConfig, steps_per_epoch: int) -> dict[int, float]:
    """The factors of --wd-at by the step from which they count."""
    found: dict[int, float] = {}
    for entry in config.wd_at:
        epoch, factor = map(float, assigned(entry))
        step = round(epoch * steps_per_epoch)
        if epoch >= config.epochs:
            raise UsageError(f"--wd-at {entry}: must be before the end of --epochs {config.epochs}")
        if step in found:
            raise UsageError(
                f"--wd-at {','.join(config.wd_at)}: two of the entries are for step {step}, at "
                f"epoch {epoch:g}"
            )
        found[step] = factor
    return found


def decaying_optimizer(
    config: TrainConfig, model: nn.Module, steps_per_epoch: int
) -> optim.Optimizer:
    """The optimizer of ``config`` for a model, its decay attached, at the peak rate.

    Raises UsageError as `schedule_of` does, and where the optimizer cannot take a step.
    """
    lr = peak_rate(config)
    optimizer = optimizers.build(config, param_groups(config, model), lr)
    if ":" in config.optimizer or config.optimizer_option:
        try:
            stepped(optimizer, lambda w, group: torch.zeros_like(w))
        except VerificationError as error:
            options = "".join(f" --optimizer-option {o}" for o in config.optimizer_option)
            raise UsageError(f"--optimizer {config.optimizer}{options}: {error}") from error
        except NotCopyableError:
            pass  # the audit says so
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
