"""The named tensors of a checkpoint, whatever form it has."""

import os
import stat
from pathlib import Path

from torch import Tensor

from qwd.checkpoints.nesting import state_dict
from qwd.checkpoints.refused import reading, shown
from qwd.checkpoints.safetensors_file import read_safetensors
from qwd.checkpoints.shards import INDEX, INDEXES, index_of, read_shards
from qwd.checkpoints.torch_file import read_pickle
from qwd.errors import InputError

PICKLED = (".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")
"""``.tar`` as in ``model_best.pth.tar``, which is no archive of that kind"""
SAFE = ".safetensors"
ENDINGS = (*PICKLED, SAFE)
WHOLE = tuple(name.removesuffix(INDEX) for name in INDEXES)
"""a model that is not in shards, in a folder; the first that is there is read"""


def read_weights(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, on the CPU, in the file's order.

    ``path`` is a file of torch.save (``.pt``, ``.pth``, ``.th``, ``.bin``, ``.ckpt``,
    ``.pth.tar``), a ``.safetensors`` file, a folder of shards of either with its index, or one with
    a single model. A state dict may be nested (``{"state_dict": ..., "epoch": 90}``); ``key``
    chooses where there are several. Tensors are mapped where the format allows it: they must not be
    written to for the file's sake, and the file must not be cut off while they are used.

    Raises InputError for what is missing, unreadable, of another format, unsafe, damaged, without
    tensors, or ambiguous; see `qwd.checkpoints.torch_file` for what is refused, and why.
    """
    with reading(path):
        if _is_folder(path):
            index = index_of(path)
            if index is not None:
                return _flat(read_shards(index), key, index)
            files = [path / name for name in WHOLE if (path / name).is_file()]
            if not files:
                raise InputError(
                    f"{shown(path)} is no file, and a folder without {' or '.join(INDEXES)}"
                )
            return read_weights(files[0], key)
        if path.name.endswith(INDEX):
            return _flat(read_shards(path), key, path)
        ending = path.suffix.lower()
        if ending == SAFE:
            return _flat(read_safetensors(path)[0], key, path)
        if ending in PICKLED:
            return state_dict(read_pickle(path), key, path)
        if not os.path.lexists(path):
            raise InputError(f"{shown(path)} does not exist")
        raise InputError(f"{shown(path)}: expected a file ending in {SAFE} or {', '.join(PICKLED)}")


def models_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder: itself where it is one model, else those directly inside.

    Each once: a link to one of them, as last.ckpt, is not another.

    Empty for what is no folder. Raises InputError where it cannot be listed.
    """
    with reading(folder):
        if not _is_folder(folder):
            return []
        if _is_model(folder):
            return [folder]
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        found: dict[str, Path] = {}
        for path in sorted(filter(_is_checkpoint, inside), key=os.path.islink):
            found.setdefault(os.path.realpath(path), path)
        return sorted(found.values())


def _is_checkpoint(path: Path) -> bool:
    return _is_model(path) if _is_folder(path) else path.suffix.lower() in ENDINGS


def _is_model(folder: Path) -> bool:
    """Whether a folder holds one model, as transformers and others save it."""
    return index_of(folder) is not None or any((folder / name).is_file() for name in WHOLE)


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False  # opening the file says what is wrong


def _flat(tensors: dict[str, Tensor], key: str | None, path: Path) -> dict[str, Tensor]:
    """A file without nesting: there is nothing to choose."""
    if key:
        raise InputError(f"{shown(path)} has no state dict at --key {key!r:.80}: it is not nested")
    return state_dict(tensors, None, path)
