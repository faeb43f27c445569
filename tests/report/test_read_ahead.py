"""Reading ahead: the pages of the next tensor are there before it is asked for."""

import sys
import time
from pathlib import Path

import pytest
import torch

from qwd.report.read_ahead import LEAST, read_ahead


def resident(path: Path) -> int:
    """Bytes of the mapping of a file that this process has in its page tables."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/smaps is there on Linux alone")
def test_the_next_tensor_is_read_meanwhile(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(4 * LEAST))
    size = LEAST // 4
    w = torch.from_file(str(path), shared=False, size=4 * size, dtype=torch.float32)
    tensors = read_ahead([torch.zeros(3), w])
    next(tensors)
    ends = time.monotonic() + 30
    while resident(path) < path.stat().st_size and time.monotonic() < ends:
        time.sleep(0.01)
    assert resident(path) == path.stat().st_size
    assert next(tensors) is w


def test_every_tensor_comes_once_and_in_order():
    large = torch.zeros(LEAST)
    given = [
        torch.zeros(()),
        large,
        large.bfloat16(),
        large.view(2, -1).t(),
        torch.zeros(0),
        large.requires_grad_(),
        large.to(torch.float8_e5m2),
    ]
    found = list(read_ahead(given))
    assert len(found) == len(given)
    assert all(a is b for a, b in zip(found, given, strict=True))


def test_nobody_waits_for_what_is_no_longer_asked_for():
    tensors = read_ahead([torch.zeros(3), torch.zeros(LEAST)])
    next(tensors)
    tensors.close()
    assert list(read_ahead([])) == []
