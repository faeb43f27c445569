"""torch.compile as others use it here: whether it can be, and without its own messages."""

import contextlib
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from typing import Any

import torch

COMPILERS = ("g++", "clang++", "cl")
DETERMINISTIC: dict[str, Any] = {"deterministic": True}
"""option of torch.compile: nothing is chosen by its time"""


def obstacle_to_compiling(device: torch.device) -> str | None:
    """What torch.compile lacks on this machine, a C++ compiler or Triton; None where nothing."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "Triton is not installed"
    asked = os.environ.get("CXX")
    names = [asked] if asked else COMPILERS
    found = any(shutil.which(name) for name in names)
    return None if found else f"there is no C++ compiler ({', '.join(names)})"


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """What the compiler has to say is for its own developers."""
    logger = logging.getLogger("torch")
    level = logger.level
    names = ["torch._dynamo", "torch._inductor", "torch._functorch"]
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                logging.getLogger(name).setLevel(logging.CRITICAL)
            logger.setLevel(logging.CRITICAL)
            yield
    finally:
        logger.setLevel(level)
        for name, was in levels.items():
            logging.getLogger(name).setLevel(was)
