"""How long a step of many replicas takes in one program, beside a step of one model.

    python -m benchmarks.fused_steps --cases mlp-256 --replicas 64 1024 --device cuda
    python -m benchmarks.fused_steps --cases resnet20 --replicas 64 --device cuda --compile

One model takes its step as one writes it by hand: eager float32, torch.optim defaults; on a GPU
also as a CUDA graph. The program takes the step of a sweep's ``fused`` executor, with ``--compile``
given to the compiler as long sweeps do. Steps alone are timed, on one batch that is on the device;
`benchmarks.fused_replicas` times whole trainings. All take turns in every round, so that a busy
machine slows each of them. Ratios are replicas x step of one model / step of the program, medians
over the rounds.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.fused_replicas import CASES, Case, settings
from qwd.config import TrainConfig
from qwd.train import seeding
from qwd.train.devices import device_called
from qwd.train.fused.figures import Replica
from qwd.train.fused.program import Program
from qwd.train.prepare import data_for, model_for

Step = Callable[[], object]


def eager(config: TrainConfig, data: Any, images: Tensor, labels: Tensor) -> Step:
    """The step of one model, as one writes it."""
    model = model_for(config, data).to(images.device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.lr, momentum=0.9, weight_decay=config.wd
    )

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def graphed(step: Step) -> Step:
    """The same, launched at once."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def together(configs: Sequence[TrainConfig], data: Any, compiled: bool) -> tuple[Program, Step]:
    """The step of a program, and the program."""
    device = device_called(configs[0].device)
    program = Program([Replica(config, data, device) for config in configs])
    images, labels, at = program.example
    if compiled and program.step.compile(images, labels, at):
        program.step.capture(images, labels, at)
    return program, lambda: program.step(images, labels, at)


def timed(step: Step, steps: int, device: torch.device) -> float:
    """Seconds of a step, the mean of so many."""
    started = time.perf_counter()
    for _ in range(steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / steps


def measure(case: Case, configs: Sequence[TrainConfig], options: argparse.Namespace) -> str:
    """One row."""
    device = device_called(configs[0].device)
    data = data_for(configs[0])

    def reproducible() -> AbstractContextManager[None]:
        """As a training is; the step of one model is not."""
        return seeding.reproducible(device, torch.get_num_threads())

    with reproducible():
        program, step = together(configs, data, options.compile)
    images, labels, _ = program.example
    if program.gradients.spread:
        images, labels = images[0], labels[0]
    alone = eager(configs[0], data, images, labels)
    ways = {"eager": alone, "fused": step}
    if device.type == "cuda":
        ways["graph"] = graphed(eager(configs[0], data, images, labels))
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, options.rounds):
        for name in list(ways) if number % 2 else list(ways)[::-1]:
            with reproducible() if name == "fused" else nullcontext():
                seconds = timed(ways[name], options.steps, device)
            if number >= 0:  # the first calls set things up
                spent[name].append(seconds)
    shown = []
    for name in [name for name in ways if name != "fused"]:
        pairs = zip(spent[name], spent["fused"], strict=True)
        ratios = [len(configs) * one / all_ for one, all_ in pairs]
        median, middle = statistics.median(spent[name]), statistics.median(ratios)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        shown.append(f"{name} {1e3 * median:.3f} ms: {middle:.2f}x ({spread})")
    how = "compiled" if program.step.compiled else "recorded" if program.records else "run anew"
    how += ", in a CUDA graph" if program.step.replayed else ""
    return (
        f"{case.model}, batch {len(labels)}, {len(configs)} replicas, {how}: "
        f"{1e3 * statistics.median(spent['fused']):.3f} ms; {'; '.join(shown)}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure steps of programs of replicas.")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES)[:3])
    parser.add_argument("--replicas", nargs="+", type=int, help="default: those of the case")
    parser.add_argument("--batch-size", type=int, help="default: that of the case")
    parser.add_argument("--data", default="digits", help="digits, or imagefolder:DIR")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--compile", action="store_true", help="give the step to the compiler")
    parser.add_argument("--amp", action="store_true", help="the program's step in bfloat16")
    parser.add_argument("--steps", type=int, default=20, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    device = device_called(options.device)
    print(f"{device}, {options.rounds} rounds of {options.steps} steps; of one model, ratio:")
    for name in options.cases:
        case = CASES[name]
        for replicas in options.replicas or [case.replicas]:
            made = settings(case, replicas, 1, options.data)
            size = options.batch_size or case.batch_size
            configs = [
                replace(c, device=str(device), batch_size=size, amp=options.amp) for c in made
            ]
            print(measure(case, configs, options), flush=True)


if __name__ == "__main__":
    main()
