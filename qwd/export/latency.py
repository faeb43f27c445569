"""How long an exported file takes, against the float network that it stands for."""

from collections.abc import Sequence

import torch

from qwd.export.figures import Benchmark, Latency
from qwd.export.program import Program
from qwd.export.timing import benchmark
from qwd.train.data import Split

CPU = torch.device("cpu")


def latencies(
    program: Program, content: bytes, split: Split, batch_sizes: Sequence[int], repetitions: int
) -> Benchmark:
    """Time ``content`` and float at each batch size, on the CPU with torch's number of threads."""
    found = []
    for size in batch_sizes if program.computes else (1,):
        # Where there are fewer images than a batch has, they come again.
        order = torch.arange(size) % len(split)
        ((images, _),) = split.batches(order, size, device=CPU)
        with torch.inference_mode():
            runs = program.runs(content, images)
            timed = benchmark(runs, program.timed, repetitions=repetitions)
        found.append(Latency(batch_size=size if program.computes else None, timed=timed))
    return Benchmark(
        repetitions=repetitions,
        threads=torch.get_num_threads(),
        note=program.note,
        latencies=tuple(found),
    )
