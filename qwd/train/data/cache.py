"""Decoded images on disk: written once, then mapped into memory instead of decoded again."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from qwd.errors import StorageError
from qwd.files import write_atomically

Chunks = Callable[[], Iterator[np.ndarray]]


def folder() -> Path:
    """``$QWD_CACHE_DIR``, else ``$XDG_CACHE_HOME/qwd``, else ``~/.cache/qwd``."""
    own, shared = os.environ.get("QWD_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "qwd"


def kept(
    path: Path, n: int, size: int | None, chunks: Chunks
) -> tuple[np.ndarray, StorageError | None]:
    """The ``n`` RGB images of ``path``: uint8 [n, 3, S, S], memory-mapped and read-only.

    Where ``path`` is absent, or is not such an array (``size`` is S, None: any), it is written
    from ``chunks()``, which yields uint8 [k, 3, S, S] in order. Where it cannot be written, the
    images stay in memory, and the reason is returned beside them.
    """
    found = _read(path, n, size)
    if found is not None:
        return found, None
    try:
        write_atomically(path, lambda temporary: _write(temporary, n, chunks()))
        found = _read(path, n, size)
        reason = StorageError(f"{path} does not read back")
    except StorageError as error:
        reason = error
    if found is not None:
        return found, None
    return np.concatenate(list(chunks())), reason


def _read(path: Path, n: int, size: int | None) -> np.ndarray | None:
    """The mapped array, or None for anything but a whole one of the expected shape."""
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError):
        return None
    if not isinstance(images, np.memmap) or images.dtype != np.uint8 or images.ndim != 4:
        return None
    side = images.shape[3] if size is None else size
    whole = images.offset + images.nbytes == path.stat().st_size
    fits = images.shape == (n, 3, side, side) and images.flags.c_contiguous
    return images if fits and whole else None


def _write(path: Path, n: int, chunks: Iterator[np.ndarray]) -> None:
    with open(path, "wb") as file:
        for number, chunk in enumerate(chunks):
            if number == 0:
                header = {"descr": "|u1", "fortran_order": False, "shape": (n, *chunk.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(chunk).data)
