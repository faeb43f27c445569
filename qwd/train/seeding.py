"""Every random number of a run follows from (seed, epoch), so that a resumed run repeats it."""

import contextlib
import os
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

# Its one attribute is installed at run time, unseen by type checkers.
deterministic: Any = torch.utils.deterministic

INITIALIZATION = -1
"""The epoch number under which the model is initialized."""


def seed_everything(seed: int, epoch: int) -> torch.Generator:
    """Seed torch (all devices), numpy and random for one epoch.

    Returns the generator of the data order and the augmentation, on the CPU so that every device
    sees the same batches. Nothing needs to be saved: the same (seed, epoch) restores all of it.
    """
    streams = np.random.SeedSequence([seed, epoch + 1]).generate_state(3, dtype=np.uint32)
    if torch.accelerator.is_available():
        torch.manual_seed(int(streams[0]))
    else:  # which notes a stack trace for each kind of device that may be found later
        torch.default_generator.manual_seed(int(streams[0]))
    np.random.seed(streams[1])  # noqa: NPY002 - user data sets draw from the global generator
    random.seed(int(streams[1]))
    return torch.Generator().manual_seed(int(streams[2]))


@contextlib.contextmanager
def reproducible(device: torch.device, threads: int | None) -> Iterator[None]:
    """Deterministic kernels and a fixed thread count inside; the caller's state afterwards."""
    before = (
        torch.get_num_threads(),
        torch.get_deterministic_debug_mode(),
        deterministic.fill_uninitialized_memory,
        random.getstate(),
        np.random.get_state(),  # noqa: NPY002
    )
    devices = [device] if device.type == "cuda" else []
    if devices:
        # cuBLAS is deterministic only with a fixed workspace, read at its first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng(devices=devices):
        try:
            # What `use_deterministic_algorithms` sets, without the compiler that it imports.
            torch.set_deterministic_debug_mode("warn")
            # A net for kernels that read memory before writing it; torch's own do not.
            deterministic.fill_uninitialized_memory = False
            if threads is not None:
                torch.set_num_threads(threads)
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.set_deterministic_debug_mode(before[1])
            deterministic.fill_uninitialized_memory = before[2]
            random.setstate(before[3])
            np.random.set_state(before[4])  # noqa: NPY002
