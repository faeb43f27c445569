"""The user's own callables, named as ``package.module:callable``."""

import os
import sys
from typing import Any

from qwd.errors import UsageError
from qwd.registry import resolve


def imported(option: str, path: str) -> Any:
    """The object at ``path``, for the option (``--model``, ``--data``) that named it.

    The current directory comes first in the search, as with ``python -m``, and stays on
    ``sys.path`` for what the callable itself imports later. Raises UsageError where the import
    fails.
    """
    from qwd.train import vision  # noqa: F401 - the user's module may import torchvision itself

    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return resolve(path)
    except Exception as error:
        # Importing runs the user's code: any exception is possible, and is his to see.
        raise UsageError(
            f"{option} {path}: cannot be imported from {here}: {cause(error)}"
        ) from error


def cause(error: Exception) -> str:
    """An exception of the user's code as one line of at most 300 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300].rstrip(": ")
