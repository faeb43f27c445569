"""Damage is refused or changes nothing: never another figure, never a crash, never two lines."""

from pathlib import Path

import pytest
import torch
from torch import nn

from qwd.checkpoints import pack_weights, read_weights
from qwd.errors import InputError
from tests.checkpoints.making import same, save_bytes
from tests.checkpoints.mutations import mutations


def network() -> dict[str, torch.Tensor]:
    """The state of a small network: several tensors, integers, one element."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    return made.state_dict()


def silent(folder: Path, ending: str, content: bytes, n: int, seed: int) -> list[int]:
    """The numbers of the mutations that read as other tensors; everything else is asserted."""
    path = folder / f"m{ending}"
    path.write_bytes(content)
    state = read_weights(path)
    found, messages = [], []
    for i, changed in enumerate(mutations(content, n, seed)):
        path = folder / f"{i}{ending}"  # a new file: the tensors of the last one are mapped
        path.write_bytes(changed)
        try:
            if not same(read_weights(path), state):
                found.append(i)
        except InputError as error:
            messages.append(str(error))
        path.unlink()
    assert len(messages) > n // 2
    assert all("\n" not in message and len(message) < 800 for message in messages)
    return found


FILES = {
    ".pt": lambda: save_bytes({"state_dict": network(), "epoch": 3}),
    ".safetensors": lambda: pack_weights(network()),
}


@pytest.mark.parametrize("ending", FILES)
def test_a_few_mutations(tmp_path: Path, ending: str) -> None:
    assert silent(tmp_path, ending, FILES[ending](), n=450, seed=0) == []


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("ending", FILES)
def test_many_mutations(tmp_path: Path, ending: str, seed: int) -> None:
    assert silent(tmp_path, ending, FILES[ending](), n=3000, seed=seed) == []


@pytest.mark.parametrize("ending", FILES)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, ending: str) -> None:
    content = FILES[ending]()
    for size in range(0, len(content), 7):
        path = tmp_path / f"m{ending}"
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match="cannot read"):
            read_weights(path)
        path.unlink()


def test_the_format_before_1_6_is_refused_when_cut_or_lengthened(tmp_path: Path) -> None:
    content = save_bytes(network(), legacy=True)
    for changed in (content[:-1], content[:-100], content[: len(content) // 2], content + b"\0"):
        (tmp_path / "m.pth").write_bytes(changed)
        with pytest.raises(InputError, match="cannot read"):
            read_weights(tmp_path / "m.pth")
