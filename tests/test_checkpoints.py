"""Reading weights: nesting, prefixes, formats, and files that are refused."""

import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from qwd.checkpoints import read_weights
from qwd.errors import InputError

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}


def saved(tmp_path: Path, content: object, name: str = "m.pt", **options) -> Path:
    torch.save(content, tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 90, "best_acc": torch.tensor(91.7)},
        {"model": {f"module.{k}": v for k, v in STATE.items()}},
        {"a": {"b": {f"_orig_mod.module.{k}": v for k, v in STATE.items()}}},
        {
            "model": STATE,
            "optimizer": torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1).state_dict(),
        },
        {k: nn.Parameter(v) for k, v in STATE.items()},
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_state_dicts_are_found_wherever_people_put_them(tmp_path, content, legacy: bool) -> None:
    path = saved(tmp_path, content, "m.th", _use_new_zipfile_serialization=not legacy)
    found = read_weights(path)
    assert list(found) == list(STATE)
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_optimizer_state_is_never_taken_for_weights(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    with pytest.raises(InputError, match="holds no tensors by name"):
        read_weights(saved(tmp_path, {"optimizer": optimizer.state_dict(), "epoch": 3}))


def test_several_state_dicts_need_a_choice(tmp_path: Path) -> None:
    other = {k: v + 1 for k, v in STATE.items()}
    path = saved(tmp_path, {"model": STATE, "model_ema": other})
    with pytest.raises(InputError, match=r"choose one with --key \(model, model_ema\)"):
        read_weights(path)
    assert torch.equal(read_weights(path, "model_ema")["conv.bias"], torch.full((2,), 2.0))
    with pytest.raises(InputError, match="no state dict at --key 'ema'; it has: model, model_ema"):
        read_weights(path, "ema")


def test_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "m.safetensors")
    found = read_weights(tmp_path / "m.safetensors")
    assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in STATE.items()}


class Attack:
    def __init__(self, canary: str):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (self.canary,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_no_code_in_a_pickle_is_run(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    torch.save({"w": torch.ones(2), "x": Attack(str(canary))}, tmp_path / "zip.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Attack(str(canary)), protocol=protocol))
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    for name in ("zip.pt", "raw.pt", "module.pt"):
        with pytest.raises(InputError, match=r"cannot read .* safely") as caught:
            read_weights(tmp_path / name)
        assert "weights_only" not in str(caught.value).split(";")[-1]
        assert "\n" not in str(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"<html>404</html>", b"\x80\x02", b"\xff" * 100, b"version https://"],
)
def test_files_that_are_not_what_they_say(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="cannot read") as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_files_folders_and_endings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_weights(tmp_path / "absent.pt")
    with pytest.raises(InputError, match="is no file"):
        read_weights(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"expected a file ending in \.safetensors"):
        read_weights(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="holds no tensors"):
        read_weights(saved(tmp_path, {"epoch": 3}))


def test_the_object_that_is_refused_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, {"state_dict": STATE, "args": argparse.Namespace(lr=1)})
    with pytest.raises(InputError, match="holds an object of argparse.Namespace"):
        read_weights(path)
