"""Who computes a cell: one process, which holds a lock while it lives."""

from pathlib import Path

from qwd.errors import StorageError
from qwd.files import sole_user


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
