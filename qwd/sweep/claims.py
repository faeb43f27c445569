"""Who computes a cell: one process, which holds a lock while it lives."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from qwd.errors import StorageError
from qwd.files import sole_user

PATIENCE = 60.0
"""seconds that another process may take to write a file of the sweep"""


def is_busy(error: StorageError) -> bool:
    """Whether the error of `qwd.files.sole_user` says that another process holds the folder."""
    return str(error).endswith("is in use by another qwd process")


def claimed(claim: Path) -> bool:
    """Whether another process holds ``claim``."""
    try:
        with sole_user(claim):
            return False
    except StorageError as error:
        if is_busy(error):
            return True
        raise


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the sweep's own files; StorageError where another process keeps them for long."""
    last = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(sole_user(folder))
                break
            except StorageError as error:
                if not is_busy(error) or time.monotonic() > last:
                    raise
                time.sleep(0.05)
        yield
