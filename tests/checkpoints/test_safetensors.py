"""Safetensors: checksums of files that qwd wrote, and tensors that are mapped, not copied."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from qwd.checkpoints import pack_weights, read_safetensors, read_weights, write_weights
from qwd.checkpoints.checksums import crc32, crc32_each
from qwd.errors import InputError
from tests.checkpoints.making import STATE, same

GROWTH = 24 << 20
PROGRAM = """
import sys
from pathlib import Path
from qwd.checkpoints import read_weights, write_weights
def anonymous():
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) << 10
for path in sys.argv[2:]:
    read_weights(Path(path))
    before = anonymous()
    found = read_weights(Path(sys.argv[1] + Path(path).suffix))
    total = sum(float(tensor.sum()) for tensor in found.values())
    print(anonymous() - before, total)
    del found
"""


def test_metadata_and_bytes_are_as_the_library_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write_weights(path, STATE, {"wd": "0.0001"})
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["wd"] == "0.0001"
        assert same({name: file.get_tensor(name) for name in STATE}, STATE)
    tensors, metadata = read_safetensors(path)
    assert same(tensors, STATE)
    assert metadata == {"wd": "0.0001"}
    assert pack_weights(STATE) == pack_weights(STATE)


def test_what_is_written_need_not_be_contiguous_or_apart(tmp_path: Path) -> None:
    whole = torch.arange(12.0, requires_grad=True).reshape(3, 4)
    state = {"w": whole, "tied": whole, "t": whole.t(), "none": whole[:0]}
    write_weights(tmp_path / "m.safetensors", state)
    assert same(read_weights(tmp_path / "m.safetensors"), state)


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    """The metadata that other libraries write, and names that only look like qwd's."""
    odd = {"qwd": torch.ones(2), "crc32": torch.ones(1)}
    save_file(odd, tmp_path / "m.safetensors", {"format": "pt", "note": "crc32"})
    assert same(read_weights(tmp_path / "m.safetensors"), odd)


def test_the_tensor_that_was_changed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    content = bytearray(pack_weights(STATE))
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="'conv.weight' does not match its checksum: it was chan"):
        read_weights(path)


def test_tensors_taken_from_one_file_into_another_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write_weights(path, STATE)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    for changed in (
        STATE | {"conv.bias": torch.zeros(2)},
        STATE | {"more": torch.zeros(2)},
        {"conv.weight": STATE["conv.weight"]},
        STATE | {"conv.bias": torch.ones(2).view(torch.int32)},
    ):
        save_file(changed, path, metadata)
        with pytest.raises(InputError, match="checksum"):
            read_weights(path)


def test_checksums_are_those_of_zlib_in_any_order() -> None:
    import zlib

    parts = [bytes([i]) * (i * 500_000) for i in (3, 0, 9, 1, 8, 2)]
    assert crc32_each([memoryview(part) for part in parts]) == [zlib.crc32(p) for p in parts]
    assert crc32(b"123456789") == 0xCBF43926


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells what is mapped")
def test_tensors_are_mapped_and_not_copied(tmp_path: Path) -> None:
    large = {f"w{i}": torch.ones(4 << 20) for i in range(8)}
    torch.save(large, tmp_path / "large.pt")
    write_weights(tmp_path / "large.safetensors", large)
    torch.save(STATE, tmp_path / "small.pt")
    write_weights(tmp_path / "small.safetensors", STATE)
    small = [str(tmp_path / f"small{ending}") for ending in (".pt", ".safetensors")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "large"), *small],
        check=True,
        capture_output=True,
        text=True,
    )
    for line in done.stdout.splitlines():
        grown, total = line.split()
        assert float(total) == 32 << 20
        assert int(grown) < GROWTH  # of 128 MB
    assert len(done.stdout.splitlines()) == 2
