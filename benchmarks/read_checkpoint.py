"""What validating a file of weights costs, beside reading it.

    python -m benchmarks.read_checkpoint --gigabytes 1 --report

The file is in the page cache. Reading it through `qwd.checkpoints` and through its library alone
(torch.load with mmap, or safetensors) take turns in one process; each is followed by one pass over
the bytes (the smallest and largest element of every tensor), without which nothing of a mapped file
is read. ``validation`` is the median difference of the pairs; with ``--report`` the whole command
`qwd quantize-report` takes turns too, and ``of a report`` is the share that validation has of it.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from qwd.checkpoints import read_weights, write_weights
from qwd.checkpoints.checksums import crc32

TENSORS = 64


def plain(path: Path) -> Mapping[str, Tensor]:
    """The tensors through the library that owns the format, without any check of qwd's."""
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True, mmap=True)
    return load_file(path)


def passed(read: Callable[[Path], Mapping[str, Tensor]], path: Path) -> float:
    """Seconds of reading a file and of one pass over its bytes."""
    started = time.perf_counter()
    for tensor in read(path).values():
        tensor.aminmax()
    return time.perf_counter() - started


def reported(path: Path) -> float:
    """Seconds of the whole command."""
    started = time.perf_counter()
    command = [str(Path(sys.executable).with_name("qwd")), "quantize-report", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    n = int(options.gigabytes * 1e9 / 4 / TENSORS)
    state = {f"layer{i}.weight": torch.randn(n) for i in range(TENSORS)}
    print(f"CRC-32 by {crc32.__module__ or 'zlib'}, {torch.get_num_threads()} threads of torch")
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"model{ending}") for ending in (".pt", ".safetensors")]
        torch.save(state, paths[0])
        write_weights(paths[1], state)
        del state
        for path in paths:
            pairs, reports = [], []
            for _ in range(options.pairs):
                pairs.append((passed(read_weights, path), passed(plain, path)))
                if options.report:
                    reports.append(reported(path))
            checked, alone = (statistics.median(times) for times in zip(*pairs, strict=True))
            added = statistics.median(a - b for a, b in pairs)
            size = path.stat().st_size / 1e9
            print(f"{path.name}: {size:.2f} GB, {checked:.3f} s checked, {alone:.3f} s alone")
            print(f"  validation {added:.3f} s, {size / added:.1f} GB/s, {added / alone:.0%} of it")
            if reports:
                whole = statistics.median(reports)
                print(
                    f"  a report takes {whole:.3f} s; validation is {added / whole:.1%} of a report"
                )


if __name__ == "__main__":
    main()
