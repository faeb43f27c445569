"""Reading files of weights: the only place that calls torch.load.

A checkpoint may come from a stranger. `.pt`, `.pth`, `.th` and `.bin` files pass through torch's
``weights_only`` unpickler, which builds tensors and plain containers and refuses everything else;
there is no fallback to the full unpickler. `.safetensors` files hold no code by design and are
read by their library.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qwd.errors import InputError

PICKLED = (".pt", ".pth", ".th", ".bin")
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile put before every name."""


def read_weights(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, on the CPU, in the file's order.

    A state dict may be nested (``{"state_dict": ..., "epoch": 90}``); ``key`` chooses where there
    are several. Raises InputError for a file that is missing, unreadable, of another format,
    unsafe, without tensors, or ambiguous.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist" if not path.exists() else f"{path} is no file")
    if path.suffix == ".safetensors":
        found = {"": _read_safetensors(path)}
    elif path.suffix in PICKLED:
        found = dict(_state_dicts(read_pickle(path)))
    else:
        raise InputError(f"{path}: expected a file ending in .safetensors or {', '.join(PICKLED)}")
    return _unwrapped(_chosen(found, key, path))


def read_pickle(path: Path) -> Any:
    """What a torch file holds, through the weights_only unpickler; InputError otherwise."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on sparse tensors, for its own users
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged or hostile file may raise anything, and torch's text advises to turn the
        # protection off; the first sentence says what was met.
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
        if refused:
            reason = f"it holds an object of {refused[1]}, neither tensor nor plain container"
        raise InputError(
            f"cannot read {path} safely: {reason[:200]}; expected a state dict saved by torch.save"
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"cannot read {path} as safetensors: {error}") from error


def _state_dicts(content: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """(dotted path, mapping) of every mapping with text keys that holds tensors, outer first."""
    if not isinstance(content, Mapping) or depth > 4:
        return
    if any(isinstance(value, Tensor) for value in content.values()):
        yield path, content
    for name, value in content.items():
        # An optimizer's state is keyed by numbers: never taken for a model's.
        if isinstance(name, str):
            yield from _state_dicts(value, f"{path}.{name}" if path else name, depth + 1)


def _chosen(found: dict[str, Any], key: str | None, path: Path) -> dict[str, Tensor]:
    if key is None and len(found) > 1:
        # A loose tensor beside a state dict ("best_acc") does not make the file a state dict.
        arrays = {k: v for k, v in found.items() if any(_is_array(t) for t in v.values())}
        found = arrays or found
    choices = ", ".join(sorted(name or "(the whole file)" for name in found)) or "none"
    if key is not None and key not in found:
        raise InputError(f"{path} has no state dict at --key {key!r}; it has: {choices}")
    if not found:
        raise InputError(f"{path} holds no tensors by name: expected a state dict")
    if key is None and len(found) > 1:
        raise InputError(f"{path} holds several state dicts: choose one with --key ({choices})")
    mapping = found[key] if key is not None else next(iter(found.values()))
    return {name: t for name, t in mapping.items() if isinstance(t, Tensor)}


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in WRAPPERS * 2:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state
