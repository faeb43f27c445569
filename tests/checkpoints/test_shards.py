"""Folders of shards: the index is believed only as far as the files agree with it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from qwd.checkpoints import models_in, read_weights
from qwd.checkpoints.shards import index_of
from qwd.errors import InputError
from tests.checkpoints.making import same
from tests.commands import qwd

PARTS = [
    {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)},
    {"b.weight": torch.arange(4, dtype=torch.bfloat16)},
]
WHOLE = {name: tensor for part in PARTS for name, tensor in part.items()}
STEMS = {".safetensors": "model", ".bin": "pytorch_model"}


def shard(ending: str, i: int) -> str:
    """The name of shard ``i``, counted from 0."""
    return f"{STEMS[ending]}-{i + 1:05}-of-00002{ending}"


def folder(path: Path, ending: str = ".safetensors") -> Path:
    """A folder of two shards and their index."""
    path.mkdir(exist_ok=True)
    for i, part in enumerate(PARTS):
        save = save_file if ending == ".safetensors" else torch.save
        save(part, path / shard(ending, i))
    weight_map = {name: shard(ending, i) for i, part in enumerate(PARTS) for name in part}
    index = {"metadata": {"total_size": 40}, "weight_map": weight_map}
    (path / f"{STEMS[ending]}{ending}.index.json").write_text(json.dumps(index))
    return path


@pytest.mark.parametrize("ending", STEMS)
def test_a_folder_reads_as_one_model(tmp_path: Path, ending: str) -> None:
    found = read_weights(folder(tmp_path / "m", ending))
    assert same(found, WHOLE)
    assert list(found) == list(WHOLE)
    index = index_of(tmp_path / "m")
    assert index is not None
    assert same(read_weights(index), WHOLE)


def test_safetensors_are_read_where_both_are_there(tmp_path: Path) -> None:
    folder(tmp_path, ".bin")
    (tmp_path / shard(".bin", 0)).write_bytes(b"damaged")
    assert same(read_weights(folder(tmp_path)), WHOLE)


def changed_map(**changes: Any) -> Callable[[Path], None]:
    """Names of tensors to other files; None takes one out."""

    def change(path: Path) -> None:
        index = path / "model.safetensors.index.json"
        content = json.loads(index.read_text())
        weight_map = content["weight_map"] | {k.replace("_", "."): v for k, v in changes.items()}
        content["weight_map"] = {k: v for k, v in weight_map.items() if v is not None}
        index.write_text(json.dumps(content))

    return change


def written(content: str) -> Callable[[Path], object]:
    """Another index."""
    return lambda path: (path / "model.safetensors.index.json").write_text(content)


def moved_out(path: Path) -> None:
    """The second shard is a link to a file outside."""
    path.joinpath(shard(".safetensors", 1)).rename(path.parent / "outside.safetensors")
    path.joinpath(shard(".safetensors", 1)).symlink_to(path.parent / "outside.safetensors")


LIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing shard": (lambda p: (p / shard(".safetensors", 1)).unlink(), "is missing"),
    "truncated shard": (
        lambda p: (p / shard(".safetensors", 1)).write_bytes(b"\0" * 9),
        "as safetensors",
    ),
    "tensor in the other shard": (
        changed_map(a_bias=shard(".safetensors", 1)),
        "has, against its index, 'a.bias'",
    ),
    "tensor left out": (changed_map(a_bias=None), "has, against its index, 'a.bias'"),
    "tensor that is nowhere": (changed_map(c_weight=shard(".safetensors", 0)), "lacks 'c.weight'"),
    "shard left out": (changed_map(b_weight=None), "is in the folder, but not in it"),
    "parent folder": (changed_map(b_weight="../outside.safetensors"), "a file of the folder"),
    "absolute path": (changed_map(b_weight="/etc/passwd"), "a file of the folder"),
    "folder below": (changed_map(b_weight="sub/x.safetensors"), "a file of the folder"),
    "hidden file": (changed_map(b_weight=".x.safetensors"), "a file of the folder"),
    "other ending": (changed_map(b_weight="config.yaml"), "is no shard"),
    "control characters": (changed_map(b_weight="\x1b[31m.bin"), "a file of the folder"),
    "number for a file": (changed_map(b_weight=3), "a file of the folder"),
    "link out of the folder": (moved_out, "is a link that leads out of its folder"),
    "no JSON": (written("{"), "not JSON"),
    "a list": (written("[]"), "no weight_map"),
    "no map": (written("{}"), "no weight_map"),
    "an empty map": (written('{"weight_map": {}}'), "no weight_map"),
    "a name twice": (written('{"weight_map": {"a": "x.bin", "a": "y.bin"}}'), "the key 'a' twice"),
    "deep": (written("[" * 100_000), "cannot read"),
    "empty": (written(""), "is empty"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies_is_refused_in_one_line(tmp_path: Path, lie: str) -> None:
    path = folder(tmp_path / "m")
    change, words = LIES[lie]
    change(path)
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_shard_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = folder(tmp_path / "m") / shard(".safetensors", 1)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="is no file: it is a pipe"):
        read_weights(tmp_path / "m")


def test_links_of_the_hubs_cache_stay_inside_the_model(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--x" / "snapshots" / "0123"
    blobs = tmp_path / "models--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for i, path in enumerate(folder(tmp_path / "m").iterdir()):
        path.rename(blobs / str(i))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(i))
    assert same(read_weights(snapshot), WHOLE)


def test_a_nested_shard_and_a_key_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", ".bin")
    with pytest.raises(InputError, match="no state dict at --key 'model': it is not nested"):
        read_weights(path, "model")
    torch.save({"state_dict": PARTS[1]}, path / shard(".bin", 1))
    with pytest.raises(InputError, match="no state dict at the top; it has: state_dict"):
        read_weights(path)


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a folder without model.safetensors.index.json or "):
        read_weights(tmp_path)
    assert index_of(tmp_path) is None


def test_a_link_to_a_checkpoint_of_the_folder_is_not_another(tmp_path: Path) -> None:
    for name in ("epoch1.pt", "epoch2.pt"):
        torch.save(PARTS[0], tmp_path / name)
    (tmp_path / "best.pt").symlink_to("epoch1.pt")
    (tmp_path / "last.pt").symlink_to(tmp_path / "epoch2.pt")
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    names = ["epoch1.pt", "epoch2.pt", "loop.pt"]
    assert [path.name for path in models_in(tmp_path)] == names


def test_the_command_reports_on_a_folder_of_shards(tmp_path: Path) -> None:
    folder(tmp_path / "m")
    done = qwd("quantize-report", "m", "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (model,) = json.loads(done.stdout)["models"]
    assert {tensor["name"] for tensor in model["tensors"]} == {"a.weight"}
    (tmp_path / "m" / shard(".safetensors", 1)).unlink()
    done = qwd("quantize-report", "m", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "is missing" in done.stderr
