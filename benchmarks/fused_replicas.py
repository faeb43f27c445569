"""How many times as fast the executors train several replicas as the obvious loop does.

    python -m benchmarks.fused_replicas
    python -m benchmarks.fused_replicas --cases mlp-256 cnn --replicas 16 --epochs 30
    python -m benchmarks.fused_replicas --cases resnet20 --data imagefolder:DIR --epochs 3

The loop is what one writes by hand: one model after another, eager float32, torch.optim defaults,
as many threads as there are cores, nothing measured and nothing stored. ``fused`` and ``processes``
share the same replicas out among a process per core and do what `qwd sweep` does in memory:
sessions with their audits, recording or compilation, validation and all figures of ``metrics.csv``.
ResNet-20, which fusing does not help, is trained by ``processes`` with ``--compile`` and ``--amp``;
on images of a folder the loop reads them decoded and does not augment, ``processes`` does. The
first round has the time of compilation in it, if that was never compiled on the machine.
Files and the start of processes are left out. The loop and ``processes`` train some of the
replicas, and their time is scaled to all of them.

All take turns in every round, so that a busy machine slows each of them. A loop of two threads
suffers far more from neighbours than single-threaded processes do: on a machine that is not idle
only ``loop, one thread`` is a fair reference. Ratios are loop / executor, medians over the rounds.
"""

import argparse
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from qwd.config import TrainConfig
from qwd.sweep.executor import cores
from qwd.sweep.processes import MEMORY
from qwd.train import seeding
from qwd.train.fused.figures import Replica
from qwd.train.fused.program import Program
from qwd.train.prepare import data_for, model_for
from qwd.train.progress import Watcher
from qwd.train.session import Session

HERE = "benchmarks.fused_replicas"
CPU = torch.device("cpu")
WDS = (0.0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def perceptron_32(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """64-32-10 on digits."""
    wide = in_channels * image_size**2
    return nn.Sequential(nn.Flatten(), nn.Linear(wide, 32), nn.ReLU(), nn.Linear(32, num_classes))


def perceptron_256(*, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """64-256-128-10 on digits."""
    wide = in_channels * image_size**2
    hidden = nn.Linear(wide, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU()
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, num_classes))


@dataclass(frozen=True)
class Case:
    """One row."""

    model: str
    batch_size: int
    replicas: int
    size: int | None = None
    """of the images"""
    ways: tuple[str, ...] = ("fused", "processes")


CASES = {
    "mlp-32": Case(f"{HERE}:perceptron_32", 32, 64),
    "mlp-256": Case(f"{HERE}:perceptron_256", 64, 16),
    "cnn": Case("small_cnn", 32, 16),
    "resnet20": Case(
        "resnet20",
        64,
        4,
        32,
        ("processes", "processes --compile", "processes --amp", "processes --compile --amp"),
    ),
}


def settings(case: Case, replicas: int, epochs: int, data: str) -> list[TrainConfig]:
    """Of every replica: all decays of one seed, then those of the next."""
    first = TrainConfig(
        model=case.model,
        data=data,
        batch_size=case.batch_size,
        epochs=epochs,
        image_size=case.size,
        threads=1,
        device="cpu",
    )
    places = range(replicas)
    return [replace(first, wd=WDS[r % len(WDS)], seed=r // len(WDS)) for r in places]


def loop(configs: list[TrainConfig], data: Any, threads: int) -> float:
    """Seconds that the obvious loop takes."""
    torch.set_num_threads(threads)
    started = time.perf_counter()
    images, labels = next(iter(data.train.batches(None, len(data.train), device=CPU)))
    for config in configs:
        torch.manual_seed(config.seed)
        model = model_for(config, data)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=config.lr, momentum=0.9, weight_decay=config.wd
        )
        for _ in range(config.epochs):
            order = torch.randperm(len(images))
            for rows in order.split(config.batch_size):
                optimizer.zero_grad()
                F.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimizer.step()
    return time.perf_counter() - started


def together(configs: list[TrainConfig], data: Any) -> None:
    """One program."""
    with seeding.reproducible(CPU, 1):
        Program([Replica(config, data, CPU) for config in configs]).run(configs[0].epochs)


def alone(configs: list[TrainConfig], data: Any) -> None:
    """One session after another."""
    with seeding.reproducible(CPU, 1):
        for config in configs:
            session = Session(config, data, CPU)
            session.compile()
            for epoch in range(config.epochs):
                session.run_epoch(epoch, Watcher())


def work(connection: Any) -> None:
    """A process of an executor: trains what it is sent."""
    warnings.simplefilter("ignore")
    while (task := connection.recv()) is not None:
        way, *options = task[0].split(" --")
        configs = [replace(config, **dict.fromkeys(options, True)) for config in task[1]]
        data = data_for(configs[0])
        connection.send("ready")
        connection.recv()
        (together if way == "fused" else alone)(configs, data)
        connection.send("done")


class Team:
    """Processes that stay, as those of a sweep do."""

    def __init__(self, size: int):
        os.environ.update({**MEMORY, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
        context = multiprocessing.get_context("spawn")
        self.ends = []
        for _ in range(size):
            here, there = context.Pipe()
            context.Process(target=work, args=(there,), daemon=True).start()
            self.ends.append(here)

    def seconds(self, way: str, configs: list[TrainConfig]) -> float:
        """How long they take for all of ``configs``, which they share."""
        size = -(-len(configs) // len(self.ends))
        parts = [configs[start : start + size] for start in range(0, len(configs), size)]
        ends = self.ends[: len(parts)]
        self._all(ends, [(way, part) for part in parts])
        started = time.perf_counter()
        self._all(ends, ["go"] * len(ends))
        return time.perf_counter() - started

    def close(self) -> None:
        """End them."""
        for end in self.ends:
            end.send(None)

    def _all(self, ends: list[Any], messages: list[Any]) -> None:
        for end, message in zip(ends, messages, strict=True):
            end.send(message)
        for end in ends:
            end.recv()


def measure(case: Case, configs: list[TrainConfig], rounds: int, of_loop: int) -> None:
    """Measure and print one row."""
    replicas = len(configs)
    data = data_for(configs[0])
    threads = cores()
    team = Team(threads)
    sample = configs[:of_loop]
    scale = replicas / len(sample)
    spread = configs[: threads * -(-of_loop // threads)]
    ways: dict[str, Callable[[], float]] = {
        "loop": lambda: scale * loop(sample, data, threads),
        "loop, one thread": lambda: scale * loop(sample, data, 1),
    }
    for way in case.ways:
        given = configs if way == "fused" else spread
        ways[way] = lambda way=way, given=given: replicas / len(given) * team.seconds(way, given)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways) if number % 2 else list(ways)[::-1]:
            spent[name].append(ways[name]())
    team.close()
    print(
        f"{case.model}, batch {case.batch_size}, {replicas} replicas, {configs[0].epochs} epochs, "
        f"{threads} cores, {rounds} rounds"
    )
    for name, times in spent.items():
        ratios = [
            [a / b for a, b in zip(spent[base], times, strict=True)]
            for base in ("loop", "loop, one thread")
        ]
        shown = ", ".join(
            f"{statistics.median(found):6.2f} ({min(found):.2f} to {max(found):.2f})"
            for found in ratios
        )
        print(f"  {name:<25} {statistics.median(times):8.2f} s   x {shown}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the executors against a loop.")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES)[:3])
    parser.add_argument("--replicas", type=int, help="default: that of the case")
    parser.add_argument("--data", default="digits", help="digits, or imagefolder:DIR")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loop", type=int, default=4, help="replicas that the loop trains")
    options = parser.parse_args()
    print("ratios: against the loop on all cores, against the loop on one thread")
    for name in options.cases:
        case = CASES[name]
        replicas = options.replicas or case.replicas
        configs = settings(case, replicas, options.epochs, options.data)
        measure(case, configs, options.rounds, min(options.loop, replicas))


if __name__ == "__main__":
    main()
