"""A model in several files, with an index that says which tensor is in which.

The index is JSON with ``weight_map``: tensor name -> file name. It is believed only as far as the
files agree: every file named is there, lies in the folder, and has exactly the tensors that are
said to be in it; no file of the same series is left out.
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from qwd.checkpoints.nesting import state_dict
from qwd.checkpoints.opening import opened
from qwd.checkpoints.refused import RefusedError, reading, shown
from qwd.checkpoints.safetensors_file import read_safetensors
from qwd.checkpoints.strict_json import parsed
from qwd.checkpoints.torch_file import read_pickle
from qwd.errors import InputError

INDEX = ".index.json"
INDEXES = (f"model.safetensors{INDEX}", f"pytorch_model.bin{INDEX}")
"""the first that is there is read: both hold the same weights, and safetensors are mapped"""
SERIES = re.compile(r"(.+)-[0-9]{5}-of-([0-9]{5})\.(safetensors|bin)")
MOST_SHARDS = 10_000


def index_of(folder: Path) -> Path | None:
    """The index of a folder of shards, None where it has none; InputError if it is unreadable."""
    with reading(folder):
        names = {path.name for path in folder.iterdir() if path.name.endswith(INDEX)}
        found = [name for name in INDEXES if name in names] or sorted(names)
    return folder / found[0] if found else None


def read_shards(index: Path) -> dict[str, Tensor]:
    """The tensors of all shards, in the order of the index; InputError where they disagree."""
    with reading(index):
        weight_map = _weight_map(parsed(opened(index).data))
        by_file: dict[str, set[str]] = {}
        for name, file in weight_map.items():
            by_file.setdefault(file, set()).add(name)
        for file in by_file:
            _check_place(index.parent, file)
        _check_series(index.parent, set(by_file))
        found: dict[str, Tensor] = {}
        for file, names in by_file.items():
            found |= _shard(index.parent / file, names)
        return {name: found[name] for name in weight_map}


def _weight_map(content: Any) -> dict[str, str]:
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise RefusedError("it has no weight_map", "an index of shards")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not re.fullmatch(r"[\w][\w.+-]{0,200}", file):
            raise RefusedError(
                f"{name!r:.80} is said to be in {file!r:.80}", "a file of the folder"
            )
        if not file.endswith((".safetensors", ".bin")):
            raise RefusedError(f"{file!r:.80} is no shard", "a .safetensors or .bin file")
    if len(set(weight_map.values())) > MOST_SHARDS:
        raise RefusedError(f"it names more than {MOST_SHARDS:,} files")
    return weight_map


def _check_place(folder: Path, file: str) -> None:
    """InputError where a shard is missing, or is a link that leads out of the folder.

    The cache of Hugging Face's hub is made of links, from ``snapshots/REVISION`` to ``blobs``
    beside ``snapshots``: those stay inside the downloaded model.
    """
    path, home = folder / file, folder.resolve()
    if not path.is_symlink() and not path.exists():
        raise InputError(f"the shard {shown(path)} is missing")
    places = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    if path.is_symlink() and path.resolve().parent not in places:
        raise InputError(f"the shard {shown(path)} is a link that leads out of its folder")


def _check_series(folder: Path, named: set[str]) -> None:
    """RefusedError where a file of the same series is in the folder and not in the index."""
    series = {match.groups() for file in named if (match := SERIES.fullmatch(file))}
    for path in sorted(folder.iterdir()):
        match = SERIES.fullmatch(path.name)
        if match and match.groups() in series and path.name not in named:
            raise RefusedError(f"the shard {shown(path.name)!r} is in the folder, but not in it")


def _shard(path: Path, names: set[str]) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        found, _ = read_safetensors(path)
    else:
        found = state_dict(read_pickle(path), "", path)
    if found.keys() != names:
        lacks, extra = sorted(names - found.keys()), sorted(found.keys() - names)
        what, name = ("lacks", lacks[0]) if lacks else ("has, against its index,", extra[0])
        raise InputError(f"the shard {shown(path)} {what} {shown(name, 80)!r}")
    return found
