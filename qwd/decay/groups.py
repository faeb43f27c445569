"""Who is decayed, by how much and at which rate: parameter groups from a model's structure."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from qwd.decay.kinds import KINDS, parameter_kinds
from qwd.decay.normalised import normalised_weights
from qwd.errors import UsageError
from qwd.registry import suggestion


def param_groups(
    model: nn.Module,
    wd: float,
    *,
    decay_bias: bool = False,
    decay_norm: bool = False,
    decay_embedding: bool = True,
    no_decay: Iterable[str] = (),
    factors: Mapping[str, float] | None = None,
    lr_corrected: str | None = None,
    lr: float | None = None,
    lr_factors: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Group trainable parameters by coefficient (and rate) for a torch optimizer.

    Biases, and the parameters of normalisation layers (found by module type), are not decayed
    unless ``decay_bias``, ``decay_norm``; embeddings are unless ``decay_embedding`` is False.
    ``factors`` maps patterns to multiples of ``wd``, the last one that matches counting, excluded
    parameters included; ``no_decay`` patterns exclude whatever else is said. A pattern is a regular
    expression over names (``re.search``) or ``@`` and one of `qwd.decay.KINDS`. What a quantizer
    learns is never decayed. ``lr_corrected`` marks weights for AdamC's correction: ``auto`` those
    followed by normalisation, or a pattern. With ``lr``, each parameter's rate is that times its
    entry in ``lr_factors``.

    Groups hold named parameters, ``decay``, the coefficient that `qwd.decay.attach` applies, and
    ``lr`` and ``lr_corrected`` where asked for. Raises UsageError for values below 0, a pattern
    that is empty or matches no parameter, and where ``wd`` is positive and nothing would be
    decayed, or nothing of what is to be corrected.
    """
    if not 0 <= wd < float("inf"):
        raise UsageError(f"--wd {wd!r}: expected a finite number of at least 0")
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    kinds = {n: kind for n, kind in parameter_kinds(model).items() if n in trainable}
    factor_of = dict.fromkeys(trainable, 1.0)
    switches = {"bias": decay_bias, "norm": decay_norm, "embedding": decay_embedding}
    factor_of |= {n: 0.0 for n, kind in kinds.items() if not switches.get(kind, True)}
    for pattern, factor in (factors or {}).items():
        if not 0 <= factor < float("inf"):
            raise UsageError(f"--decay {pattern}={factor}: expected a factor of at least 0")
        factor_of |= dict.fromkeys(matching(pattern, kinds, "--decay"), factor)
    for pattern in no_decay:
        factor_of |= dict.fromkeys(matching(pattern, kinds, "--no-decay"), 0.0)
    factor_of |= {n: 0.0 for n, kind in kinds.items() if kind == "quantizer"}
    if wd > 0 and not any(factor_of.values()):
        raise UsageError(f"--wd {wd:g}: every parameter is excluded from decay; loosen --no-decay")

    corrected = _corrected(model, lr_corrected, kinds)
    if wd > 0 and lr_corrected is not None and not any(factor_of.get(n) for n in corrected):
        raise UsageError(
            f"--lr-corrected '{lr_corrected}' matches only parameters that are not decayed: "
            "expected decayed ones"
        )
    groups: dict[Any, dict[str, Any]] = {}
    for name, parameter in trainable.items():
        entry: dict[str, Any] = {"decay": wd * factor_of[name]}
        if lr is not None:
            entry["lr"] = lr * (lr_factors or {}).get(name, 1.0)
        if lr_corrected is not None:
            entry["lr_corrected"] = name in corrected
        group = groups.setdefault(tuple(entry.values()), {"params": [], **entry})
        group["params"].append((name, parameter))
    return sorted(groups.values(), key=lambda group: -group["decay"])


def matching(pattern: str, kinds: Mapping[str, str], option: str) -> list[str]:
    """The names that a pattern means; UsageError with the nearest ones where there are none."""
    if not pattern:
        raise UsageError(f"{option} '': an empty pattern would match every parameter; use '.'")
    if pattern.startswith("@"):
        kind = pattern[1:]
        if kind not in KINDS:
            known = [f"@{k}" for k in KINDS]
            raise UsageError(f"{option} '{pattern}': no such kind, {suggestion(pattern, known)}")
        found = [name for name, of in kinds.items() if of == kind]
        if not found:
            here = ", ".join(dict.fromkeys(f"@{of}" for of in kinds.values()))
            raise UsageError(f"{option} '{pattern}' matches no parameter: there are {here}")
    else:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise UsageError(f"{option} '{pattern}': no regular expression ({error})") from None
        found = [name for name in kinds if expression.search(name)]
    if not found:
        raise UsageError(f"{option} '{pattern}' matches no parameter: {_nearest(pattern, kinds)}")
    return found


def normalisation_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters of normalisation layers: torch's own, and classes named so."""
    return {name for name, kind in parameter_kinds(model).items() if kind == "norm"}


def _corrected(model: nn.Module, asked: str | None, kinds: Mapping[str, str]) -> set[str]:
    if asked is None:
        return set()
    if asked != "auto":
        return set(matching(asked, kinds, "--lr-corrected"))
    found = normalised_weights(model)
    if not found:
        raise UsageError(
            "--lr-corrected auto: no layer is followed by normalisation; name the weights by a "
            "regular expression"
        )
    return found


def _nearest(pattern: str, names: Iterable[str]) -> str:
    """The names most like a pattern, or some of all."""
    names = list(names)
    plain = re.sub(r"[\\^$.*+?()|\[\]{}]+", ".", pattern).strip(".")
    near = difflib.get_close_matches(plain, names, n=3, cutoff=0.4)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"known: {', '.join(names[:5])}{more}"
