"""The optimizers: torch.optim's by name, and any other class; decay is attached, not in them.

A registered optimizer is a function of parameter groups, ``lr``, ``momentum`` and further
arguments by keyword.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn, optim

from qwd import decay
from qwd.config import TrainConfig
from qwd.errors import QwdError, UsageError
from qwd.parsing import assigned
from qwd.registry import OPTIMIZERS
from qwd.setting import option_name
from qwd.train.user_code import cause, imported

Groups = list[dict[str, Any]]

# Arguments that are settings of their own.
SETTINGS = {"lr": "lr", "weight_decay": "wd", "momentum": "momentum", "nesterov": "nesterov"}


def sgd(groups: Groups, lr: float, momentum: float, **more: Any) -> optim.Optimizer:
    """Stochastic gradient descent with momentum, --nesterov too."""
    return optim.SGD(groups, lr=lr, momentum=momentum, **more)


def adam(groups: Groups, lr: float, momentum: float, **more: Any) -> optim.Optimizer:
    """Adam (Kingma & Ba 2015), beta1 = momentum, beta2 = 0.999."""
    return optim.Adam(groups, lr=lr, **{"betas": (momentum, 0.999), **more})


def adamw(groups: Groups, lr: float, momentum: float, **more: Any) -> optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019): Adam with decoupled decay, beta2 = 0.999."""
    return optim.AdamW(groups, lr=lr, weight_decay=0.0, **{"betas": (momentum, 0.999), **more})


def rmsprop(groups: Groups, lr: float, momentum: float, **more: Any) -> optim.Optimizer:
    """RMSprop (Tieleman & Hinton 2012) with momentum, alpha = 0.99."""
    return optim.RMSprop(groups, lr=lr, momentum=momentum, **more)


def build(config: TrainConfig, groups: Groups, lr: float) -> optim.Optimizer:
    """The optimizer of ``config`` for these groups at the peak rate ``lr``, without a decay.

    Raises UsageError, naming the option, where the class does not take the arguments.
    """
    more = {key: _value(text) for key, text in map(assigned, config.optimizer_option)}
    for key in more.keys() & SETTINGS.keys():
        raise UsageError(
            f"--optimizer-option {key}: this is the option {option_name(SETTINGS[key])}"
        )
    if config.nesterov:
        more["nesterov"] = True
    try:
        if ":" in config.optimizer:
            return _of_class(config, groups, lr, more)
        return OPTIMIZERS.get(config.optimizer)(groups, lr, config.momentum, **more)
    except QwdError:
        raise
    except Exception as error:  # of a class that anyone may have written
        given = "".join(f" --optimizer-option {entry}" for entry in config.optimizer_option)
        raise UsageError(f"--optimizer {config.optimizer}{given}: {cause(error)}") from error


def gain(config: TrainConfig) -> float | None:
    """How far the optimizer of ``config`` amplifies a constant gradient; see `qwd.decay.gain`."""
    idle = {"params": [nn.Parameter(torch.zeros(2, 2))], "decay": 0.0}
    return decay.gain(build(config, [idle], config.lr))


def _of_class(
    config: TrainConfig, groups: Groups, lr: float, more: dict[str, Any]
) -> optim.Optimizer:
    made: Callable[..., Any] = imported("--optimizer", config.optimizer)
    if not callable(made):
        raise UsageError(f"--optimizer {config.optimizer}: expected a class of optimizers")
    takes = inspect.signature(made).parameters
    # Decay of the class's own, ASGD's `lambd` included, would come on top of qwd's.
    own: dict[str, Any] = {key: 0.0 for key in ("weight_decay", "lambd") if key in takes}
    if config.momentum is not None:
        if "betas" in takes:
            own["betas"] = (config.momentum, *takes["betas"].default[1:])
        elif "momentum" in takes:
            own["momentum"] = config.momentum
        else:
            raise UsageError(
                f"--momentum {config.momentum:g}: {config.optimizer} takes neither momentum nor "
                "betas"
            )
    optimizer = made(groups, lr=lr, **{**own, **more})
    if not isinstance(optimizer, optim.Optimizer):
        raise UsageError(
            f"--optimizer {config.optimizer}: gives {type(optimizer).__name__}; expected a "
            "torch.optim.Optimizer"
        )
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UsageError(
            f"--optimizer {config.optimizer}: its steps need a closure, which training has not"
        )
    return optimizer


def _value(text: str) -> bool | float | int | str | Sequence[Any]:
    """A number, true or false, a tuple of such with commas, or the text itself."""
    if "," in text:
        return tuple(_value(part) for part in text.split(","))
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]  # type: ignore[return-value]
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    return text
