"""How many replicas fit: the memory found, over what one of them needs."""

import gc
import os

import torch

from qwd.train.fused.gradients import alone
from qwd.train.fused.program import aside
from qwd.train.session import Session

SHARE = 0.5
"""of the free memory that is used"""
WORKING = 3
"""what is needed beside the tensors kept for the backward pass, in multiples of them"""
MATRICES = 8
"""of the size of the weights: gradients, optimizer state, copies for figures"""


def replicas_that_fit(session: Session) -> int:
    """How many replicas of ``session`` can be one program here; at least 1."""
    with aside(session):
        images, labels = next(iter(session.batches(0)))
        # In bfloat16 too: the program is first held to gradients in the dtype of the weights.
        saved = alone(session, images, labels, amp=False).saved
    weights = sum(p.nbytes for p in session.network.parameters())
    needed = WORKING * (saved + images.nbytes) + MATRICES * weights
    return max(1, int(SHARE * free(session.device) / max(needed, 1)))


def free(device: torch.device) -> int:
    """Bytes of memory that nobody uses."""
    if device.type == "cuda":
        release(device)
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not a name that this system knows
        return 1 << 30


def release(device: torch.device) -> None:
    """Let go of what programs that have ended hold on a GPU, and of what torch keeps for later."""
    if device.type == "cuda":
        gc.collect()  # a program and its step refer to each other
        torch.cuda.empty_cache()
