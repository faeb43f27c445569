"""How fast the figures of weights are, beside the obvious torch script.

    python -m benchmarks.weight_figures --megabytes 1000

The script asks torch for the same figures one call each: min, max, mean, std, kurtosis, histc, fake
quantization, SQNR. Both take turns in one process on the same tensor, mapped from a file in the
page cache, so that a busy machine slows both. Printed are medians over the rounds, the smallest and
largest ratio beside theirs, and how much anonymous memory qwd takes beyond what the process has
when the rounds begin. qwd works in the tier without order statistics, and its kernels are compiled
before. The case `resident` needs a GPU, on which the tensor lies.
"""

import argparse
import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from qwd.quantize import kernels_loading, statistics_device
from qwd.quantize.channels import channel_figures
from qwd.quantize.statistics import weight_figures

COLUMNS = 4096
CASES = ("float32", "channel", "bfloat16", "small", "resident")
CALLS = 20
"""that are timed as one on a GPU"""


def script(w: Tensor) -> dict[str, float]:
    """What one writes in five minutes: every figure of a tensor by a torch call of its own."""
    w = w.float()
    a, b = w.min().item(), w.max().item()
    mean, std = w.mean(), w.std(correction=0)
    kurtosis = ((w - mean) ** 4).mean() / std**4 - 3
    codes = torch.histc(w, bins=256, min=a, max=b) / w.numel()
    entropy = -torch.special.xlogy(codes, codes).sum()
    scale = (b - a) / 255 or 1.0
    zero = min(max(round(-a / scale), 0), 255)
    lost = torch.fake_quantize_per_tensor_affine(w, scale, zero, 0, 255) - w
    sqnr = 10 * torch.log10(w.square().sum() / lost.square().sum())
    return {"sqnr": float(sqnr), "kurtosis": float(kurtosis), "entropy": float(entropy)}


def script_by_channel(w: Tensor) -> dict[str, float]:
    """The script, and a scale for every row."""
    found = script(w)
    a, b = w.amin(dim=1), w.amax(dim=1)
    ranges = b - a
    scale = (ranges / 255).clamp(min=1e-12)
    zero = (-a / scale).round().clamp(0, 255).int()
    lost = torch.fake_quantize_per_channel_affine(w, scale, zero, 0, 0, 255) - w
    sqnr = 10 * torch.log10(w.square().sum() / lost.square().sum())
    spread = ranges.max() / ranges.median()
    return found | {"channel sqnr": float(sqnr), "spread": float(spread)}


def figures_by_channel(w: Tensor) -> None:
    """qwd's figures of a tensor and of its rows."""
    channel_figures(w, of=weight_figures(w, full=False))


@dataclass
class Rounds:
    """Seconds of both sides, round by round."""

    script: list[float] = field(default_factory=list)
    qwd: list[float] = field(default_factory=list)
    memory: float = 0.0
    """largest growth of qwd's anonymous memory, bytes"""

    def line(self, name: str, size: int) -> str:
        """Speeds, in 10^9 bytes per second, and ratios."""
        ratios = [s / q for s, q in zip(self.script, self.qwd, strict=True)]
        speeds = [size / statistics.median(each) / 1e9 for each in (self.script, self.qwd)]
        return (
            f"{name:<10} {speeds[0]:>8.3f} {speeds[1]:>8.3f} {statistics.median(ratios):>7.1f}x "
            f"{min(ratios):>6.1f}x..{max(ratios):.1f}x {statistics.median(self.qwd):>9.3f} s "
            f"{self.memory / 1e6:>8.0f} MB"
        )


def anonymous() -> int:
    """RssAnon of this process in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@contextlib.contextmanager
def peak(of: Rounds) -> Iterator[None]:
    """Watch the anonymous memory while a block runs."""
    done = threading.Event()
    before = anonymous()

    def watch() -> None:
        while not done.wait(0.005):
            of.memory = max(of.memory, anonymous() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def timed(work: Callable[[], object]) -> float:
    """Seconds, after a pause in which torch's threads, which spin for a while, go to sleep."""
    time.sleep(0.3)
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def timed_on_gpu(work: Callable[[], object]) -> float:
    """Seconds of a call among others: in a pause a GPU lowers its clock."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(CALLS):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / CALLS


def compare(
    script: Callable[[], object],
    qwd: Callable[[], object],
    rounds: int,
    clock: Callable[[Callable[[], object]], float] = timed,
) -> Rounds:
    """Both in turns, after one of each that is not counted."""
    found = Rounds()
    qwd()
    for k in range(rounds):
        if k % 2:
            found.script.append(clock(script))
        with peak(found):
            found.qwd.append(clock(qwd))
        if not k % 2:
            found.script.append(clock(script))
    return found


@contextlib.contextmanager
def mapped(numel: int, dtype: torch.dtype) -> Iterator[Tensor]:
    """Weights in a file that is mapped and in the page cache."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        generator = torch.Generator().manual_seed(0)
        with path.open("wb") as file:
            for start in range(0, numel, 2**22):
                n = min(2**22, numel - start)
                part = (torch.randn(n, generator=generator) * 0.02).to(dtype)
                file.write(part.view(torch.uint8).numpy().tobytes())
        yield torch.from_file(str(path), shared=True, size=numel, dtype=dtype).view(-1, COLUMNS)


def small_tensors(count: int) -> list[Tensor]:
    """Of 16 to 1024 elements."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(16, 1025, (count,), generator=generator).tolist()
    return [torch.randn(n, generator=generator) * 0.1 for n in sizes]


def resident(megabytes: float, rounds: int) -> str:
    """The line of a tensor on a GPU."""
    if not torch.cuda.is_available():
        return "resident   skipped: there is no GPU"
    rows = max(1, round(megabytes * 1e6 / 4 / COLUMNS))
    w = torch.randn(rows, COLUMNS, device="cuda").mul_(0.02)
    found = compare(
        lambda: script(w), lambda: weight_figures(w, full=False), rounds, clock=timed_on_gpu
    )
    where = "" if statistics_device.runs_on(w.device, w.dtype) else ", copied to the CPU"
    return found.line("resident", w.nbytes) + where


def run(case: str, megabytes: float, count: int, rounds: int) -> str:
    """One line of the table."""
    if case == "resident":
        return resident(megabytes, rounds)
    if case == "small":
        tensors = small_tensors(count)
        size = sum(4 * w.numel() for w in tensors)
        found = compare(
            lambda: [script(w) for w in tensors],
            lambda: [weight_figures(w, full=False) for w in tensors],
            rounds,
        )
        return found.line(case, size)
    dtype = torch.bfloat16 if case == "bfloat16" else torch.float32
    rows = max(1, round(megabytes * 1e6 / dtype.itemsize / COLUMNS))
    with mapped(rows * COLUMNS, dtype) as w:
        if case == "channel":
            found = compare(lambda: script_by_channel(w), lambda: figures_by_channel(w), rounds)
        else:
            found = compare(lambda: script(w), lambda: weight_figures(w, full=False), rounds)
        return found.line(case, w.nbytes)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The speed of weight figures")
    parser.add_argument("--cases", default=",".join(CASES), help="of " + ", ".join(CASES))
    parser.add_argument("--megabytes", type=float, default=1000.0, help="of a large tensor")
    parser.add_argument("--count", type=int, default=50_000, help="of small tensors")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kernels_loading.expect(kernels_loading.NEW)
    print(f"{options.megabytes:g} MB, {options.rounds} rounds, {options.threads} threads")
    print("case         script      qwd    ratio  (range)             qwd      anonymous")
    print("               GB/s     GB/s                             median      beyond start")
    for case in options.cases.split(","):
        print(run(case, options.megabytes, options.count, options.rounds), flush=True)


if __name__ == "__main__":
    main()
