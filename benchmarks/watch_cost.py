"""What the figures of the weights cost of an epoch.

    python -m benchmarks.watch_cost
    python -m benchmarks.watch_cost --data imagefolder:DIR --model resnet20

Epochs with and without the figures (those of `qwd.train.watch`, and the range after folding) take
turns in one process, so that a busy machine slows both. The first figure is the median of the
ratios of all pairs, with their quartiles; noise makes it uncertain by a few per cent. The parts are
timed by themselves, as shares of the median epoch.
"""

import argparse
import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Iterator

import torch

from qwd.config import TrainConfig
from qwd.train import seeding
from qwd.train.data import Data
from qwd.train.devices import device_called
from qwd.train.evaluation import loss_and_accuracy
from qwd.train.prepare import data_for
from qwd.train.progress import Watcher
from qwd.train.session import Session
from qwd.train.watch import Watch

WARM_UP = 2


class Blind(Watch):
    """Looks at nothing."""

    def before_step(self) -> None:
        pass

    def after_step(self) -> None:
        pass

    @contextlib.contextmanager
    def validating(self) -> Iterator[None]:
        yield

    def row(self) -> dict[str, float | None]:
        return {}


class Unwatched(Session):
    """A session without the figures."""

    def __init__(self, config: TrainConfig, data: Data, device: torch.device):
        super().__init__(config, data, device)
        self.watch = Blind(self.model, self.optimizer)

    def folded_range(self) -> float | None:
        return None


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long it takes, until the device has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def parts(session: Session, rounds: int) -> dict[str, float]:
    """Median seconds of each part of the figures."""
    device, watch = session.device, session.watch
    session.step(*next(iter(session.batches(0))))  # leaves gradients

    def validate() -> None:
        loss_and_accuracy(session.model, session.data.validation, device)

    def validate_watched() -> None:
        with watch.validating():
            validate()

    spent: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, work in {
            "before the step": watch.before_step,
            "after the step": watch.after_step,
            "dead channels": validate_watched,
            "the row": watch.row,
            "folded range": session.folded_range,
        }.items():
            extra = seconds(work, device)
            if name == "dead channels":
                extra -= seconds(validate, device)
            spent.setdefault(name, []).append(extra)
    return {name: statistics.median(times) for name, times in spent.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the cost of the figures.")
    parser.add_argument("--model", default="small_cnn")
    parser.add_argument("--data", default="digits", help="digits, or imagefolder:DIR")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    device = device_called(options.device)
    config = TrainConfig(
        model=options.model,
        data=options.data,
        batch_size=options.batch_size,
        epochs=options.pairs + WARM_UP,
        threads=options.threads,
    )
    data = data_for(config)
    with seeding.reproducible(device, options.threads):
        sessions = [kind(config, data, device) for kind in (Unwatched, Session)]
        pairs = []
        for epoch in range(config.epochs):
            spent = {}
            for session in sessions if epoch % 2 else sessions[::-1]:
                work = functools.partial(session.run_epoch, epoch, Watcher())
                spent[session] = seconds(work, device)
            pairs.append([spent[session] for session in sessions])
        found = parts(sessions[1], options.pairs)
    pairs = pairs[WARM_UP:]
    base = statistics.median(without for without, _ in pairs)
    below, median, above = statistics.quantiles([b / a - 1 for a, b in pairs], n=4)
    print(
        f"{options.model} on {options.data}, {device}, {options.threads} threads: epochs of "
        f"{sessions[0].steps_per_epoch} steps and {1e3 * base:.0f} ms, {options.pairs} pairs"
    )
    print(f"with / without the figures: {median:+.2%} ({below:+.2%} to {above:+.2%})")
    for name, spent in {**found, "together": sum(found.values())}.items():
        print(f"{name:<16} {1e3 * spent:7.3f} ms {spent / base:7.2%}")


if __name__ == "__main__":
    main()
