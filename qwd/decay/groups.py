"""Who is decayed: parameter groups from a model's structure."""

import re
from typing import Any

from torch import nn

from qwd.errors import UsageError
from qwd.registry import suggestion

_NORM_CLASS = re.compile(r"Norm(\dd)?$")


def param_groups(
    model: nn.Module,
    wd: float,
    *,
    decay_bias: bool = False,
    decay_norm: bool = False,
    no_decay: tuple[str, ...] = (),
) -> list[dict[str, Any]]:
    """Split trainable parameters into a decayed and an undecayed group for a torch optimizer.

    Biases, and the parameters of normalisation layers (found by module type), are not decayed
    unless ``decay_bias``, ``decay_norm``; nor is any parameter whose name one of the regular
    expressions ``no_decay`` matches (``re.search``). Groups hold named parameters and ``decay``,
    the coefficient that `qwd.decay.attach` applies.

    Raises UsageError for an expression that matches no parameter, and where ``wd`` is positive
    and nothing would be decayed.
    """
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for pattern in no_decay:
        if not any(re.search(pattern, name) for name in trainable):
            raise UsageError(
                f"--no-decay {pattern!r} matches no parameter: {suggestion(pattern, trainable)}"
            )
    normalisation = normalisation_parameters(model)

    def is_decayed(name: str) -> bool:
        if any(re.search(pattern, name) for pattern in no_decay):
            return False
        if name in normalisation:
            return decay_norm
        return decay_bias or "bias" not in name.rpartition(".")[2]

    decayed = [(n, p) for n, p in trainable.items() if is_decayed(n)]
    if wd > 0 and not decayed:
        raise UsageError(f"--wd {wd:g}: every parameter is excluded from decay; loosen --no-decay")
    excluded = [(n, p) for n, p in trainable.items() if not is_decayed(n)]
    groups = [{"params": decayed, "decay": wd}, {"params": excluded, "decay": 0.0}]
    return [group for group in groups if group["params"]]


def normalisation_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters of normalisation layers: torch's own, and classes named so."""
    own = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return {
        f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules()
        if isinstance(module, own) or _NORM_CLASS.search(type(module).__name__)
        for name, _ in module.named_parameters(recurse=False)
    }
