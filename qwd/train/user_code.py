"""The user's own callables, named as ``package.module:callable``."""

import os
import sys
from pathlib import Path
from typing import Any

from qwd.errors import UsageError
from qwd.registry import resolve
from qwd.train.layout import is_run


def imported(option: str, path: str) -> Any:
    """The object at ``path``, for the option (``--model``, ``--data``) that named it.

    The current directory comes first in the search, as with ``python -m``, and stays on
    ``sys.path`` for what the callable itself imports later. Settings may be a stranger's, from a
    run folder: what lies in one, and Python's own modules (``os:abort``), are never meant. Raises
    UsageError for those, and where the import fails.
    """
    from qwd.train import vision  # noqa: F401 - the user's module may import torchvision itself

    here = os.getcwd()
    module = path.partition(":")[0].split(".")
    if module[0] in sys.stdlib_module_names:
        raise UsageError(f"{option} {path}: {module[0]} is Python's own, expected another module")
    folder = next((place for place in Path(here, *module).parents if is_run(place)), None)
    if folder is not None:
        raise UsageError(f"{option} {path}: the module lies in the run folder {folder}")
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
