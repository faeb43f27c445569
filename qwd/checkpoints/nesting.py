"""Where the state dict is in what a file holds, and which one is meant."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from qwd.checkpoints.refused import shown
from qwd.errors import InputError

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile put before every name."""
DEPTH = 4
CHOICES = 12
"""how many state dicts an error lists"""


def state_dict(content: Any, key: str | None, path: Path) -> dict[str, Tensor]:
    """The one mapping of tensors in ``content``, its names without wrappers' prefixes.

    ``key`` is its dotted path, empty for the whole file, and chooses where there are several.
    Raises InputError where there is none, no such one, or a choice that is not made, and for
    tensors whose names are no text.
    """
    found, where = _found(content, path), shown(path)
    if key is None and len(found) > 1:
        # A loose tensor beside a state dict ("best_acc") does not make the file a state dict.
        arrays = {k: v for k, v in found.items() if any(_is_array(t) for t in v.values())}
        found = arrays or found
    names = sorted(shown(name or "(the whole file)", 60) for name in found)
    more = f" and {len(names) - CHOICES} more" if len(names) > CHOICES else ""
    choices = ", ".join(names[:CHOICES]) + more or "none"
    if key is not None and key not in found:
        place = f"--key {key!r:.80}" if key else "the top"
        raise InputError(f"{where} has no state dict at {place}; it has: {choices}")
    if not found:
        raise InputError(f"{where} holds no tensors by name{_kind(content)}: expected a state dict")
    if key is None and len(found) > 1:
        raise InputError(f"{where} holds several state dicts: choose one with --key ({choices})")
    mapping = found[key] if key is not None else next(iter(found.values()))
    tensors = {name: t for name, t in mapping.items() if isinstance(t, Tensor)}
    for name in tensors:
        if not isinstance(name, str):
            raise InputError(
                f"{where} names a tensor {name!r:.40}, a {type(name).__name__}: expected names "
                "that are text"
            )
    return _unwrapped(tensors)


def _found(content: Any, file: Path) -> dict[str, Mapping[Any, Any]]:
    """Every mapping that holds tensors by its dotted path, outer first, each once."""
    found: dict[str, Mapping[Any, Any]] = {}
    seen: set[int] = set()
    waiting = [("", content)]
    for _ in range(DEPTH + 1):
        inner = []
        for path, value in waiting:
            if not isinstance(value, Mapping) or id(value) in seen:
                continue
            seen.add(id(value))
            if any(isinstance(item, Tensor) for item in value.values()):
                if path in found:
                    raise InputError(f"{shown(file)} holds two state dicts at {path!r:.80}")
                found[path] = value
            # An optimizer's state is keyed by numbers: never taken for a model's.
            inner += [
                (f"{path}.{name}" if path else name, item)
                for name, item in value.items()
                if isinstance(name, str) and isinstance(item, Mapping)
            ]
        waiting = inner
    return found


def _kind(content: Any) -> str:
    if isinstance(content, (list, tuple)):
        return f" but a list of {len(content)}"
    if isinstance(content, Tensor):
        return " but one tensor without a name"
    if isinstance(content, Mapping) and {"state", "param_groups"} <= {
        *content,
        *(k for v in content.values() if isinstance(v, Mapping) for k in v),
    }:
        return " but an optimizer's state"
    return ""


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in WRAPPERS * 2:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state
