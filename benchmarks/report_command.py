"""What the whole command `qwd quantize-report` takes, start-up included.

    python -m benchmarks.report_command --cases resnet20,small
    python -m benchmarks.report_command --cold FILE

`import torch`, below which no such command can get, takes turns with it. Printed are medians of
seconds on the clock and of the processor's seconds, and the most anonymous memory. ``resnet20`` is
a checkpoint of that network, ``small`` a file of many tensors of 16 to 8,192 elements. ``--cold``
takes a file, or a folder of shards, that is not in memory: its pages are given up before each turn,
and `cat` takes turns with the report.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from qwd.checkpoints import write_weights
from qwd.train.models import build

CASES = ("resnet20", "small")
POLL = 0.01
"""seconds between looks at the memory"""


@dataclass(frozen=True)
class Took:
    """What one command took."""

    wall: float
    user: float
    anonymous: int


def took(command: list[str]) -> Took:
    """Run a command to its end, its output thrown away."""
    before, started, most = os.times(), time.perf_counter(), 0
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None:
        most = max(most, anonymous(child.pid))
        time.sleep(POLL)
    after = os.times()
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {child.returncode}")
    return Took(time.perf_counter() - started, after.children_user - before.children_user, most)


def anonymous(process: int) -> int:
    """RssAnon of a process in bytes; 0 where it has ended, or the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def tensors(case: str, count: int) -> dict[str, Tensor]:
    """The content of a case's file."""
    torch.manual_seed(0)
    if case == "resnet20":
        return build("resnet20", in_channels=3, image_size=32, num_classes=10).state_dict()
    sizes = torch.randint(1, 513, (count,)).tolist()
    return {f"layers.{i}.weight": torch.randn(n, 16) * 0.05 for i, n in enumerate(sizes)}


def give_up(files: list[Path]) -> None:
    """Leave the next reader of files nothing but the disk."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)  # what is not written yet would stay
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def measure(commands: dict[str, list[str]], rounds: int, cold: list[Path]) -> None:
    """Print a line for each command; all take turns."""
    found: dict[str, list[Took]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            give_up(cold)
            found[name].append(took(command))
    for name, every in found.items():
        wall = statistics.median(each.wall for each in every)
        user = statistics.median(each.user for each in every)
        most = max(each.anonymous for each in every) / 1e6
        print(f"{name:<13} {wall:>6.2f} s {user:>6.2f} s {most:>12.0f} MB", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", default=",".join(CASES), help="of " + ", ".join(CASES))
    parser.add_argument("--count", type=int, default=50_000, help="of small tensors")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", type=Path, help="a file or folder, in place of the cases")
    options = parser.parse_args()
    report = [str(Path(sys.executable).with_name("qwd")), "quantize-report"]
    print("                 wall     user      most anonymous")
    if options.cold:
        files = [path for path in (options.cold, *options.cold.glob("*")) if path.is_file()]
        commands = {"cat": ["cat", *map(str, files)], "report": [*report, str(options.cold)]}
        measure(commands, options.rounds, files)
        return
    for case in options.cases.split(","):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.safetensors")
            write_weights(path, tensors(case, options.count))
            commands = {
                "import torch": [sys.executable, "-c", "import torch"],
                case: [*report, str(path)],
            }
            measure(commands, options.rounds, [])


if __name__ == "__main__":
    main()
