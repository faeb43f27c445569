"""Files come from the disk while libraries are imported."""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

MOST = 2**30
"""bytes asked for in all: more might push out of memory what comes first"""
STEP = 2**24
"""bytes asked for at a time"""


def prefetch(paths: Iterable[Path]) -> None:
    """Have the system read files, and those in folders, in the background.

    It stops at `MOST` bytes; nothing is kept by this process, and nothing fails. Where the system
    takes no such requests, nothing is done.
    """
    if hasattr(os, "posix_fadvise"):
        threading.Thread(target=_ask, args=(list(paths),), daemon=True).start()


def _ask(paths: Iterable[Path]) -> None:
    left = MOST
    for file in _files(paths):
        with suppress(OSError), file.open("rb") as opened:
            size = min(left, os.fstat(opened.fileno()).st_size)
            for start in range(0, size, STEP):
                os.posix_fadvise(opened.fileno(), start, STEP, os.POSIX_FADV_WILLNEED)
            left -= size
        if not left:
            return


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        with suppress(OSError):
            inside = sorted(path.iterdir()) if path.is_dir() else [path]
            yield from (file for file in inside if file.is_file())
