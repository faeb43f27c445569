"""Whether the compiled kernels pay, and where they are kept.

Importing numba takes about 0.4 s and compiling the kernels, once per machine, a few seconds: more
than NumPy needs for a small network, less than it needs for a large one. Kernels and NumPy give
the same bits, so that this is a question of time alone.
"""

import functools
import os
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

KEPT = 2 * 10**7
"""elements that NumPy goes through while kernels are loaded from the cache"""
NEW = 10**8
"""elements from which compiling pays: a quarter of what NumPy goes through meanwhile, because it is
done once per machine"""

_lock = threading.Lock()
_seen = 0


def expect(elements: int) -> None:
    """Say before the work that so many elements will come, instead of letting it be noticed."""
    global _seen
    _seen += elements


def kernels(elements: int) -> ModuleType | None:
    """`qwd.quantize.kernels`, once the elements seen so far would have paid for loading it."""
    expect(elements)
    if not _loaded() and _seen < NEW and (_seen < KEPT or not _kept()):
        return None
    return _load()


def place() -> Path | None:
    """Where numba keeps qwd's kernels: its own setting, else qwd's cache; None without a home."""
    for own, inside in (("NUMBA_CACHE_DIR", ""), ("QWD_CACHE_DIR", ""), ("XDG_CACHE_HOME", "qwd")):
        if os.environ.get(own):
            return Path(os.environ[own], inside) / ("" if own.startswith("NUMBA") else "kernels")
    try:
        return Path.home() / ".cache" / "qwd" / "kernels"
    except RuntimeError:
        return None


def _loaded() -> bool:
    return _load.cache_info().currsize > 0


@functools.cache
def _kept() -> bool:
    """Whether an earlier process left these kernels where this one finds them."""
    source = Path(__file__).with_name("kernels.py")
    folder = place()
    try:
        changed = source.stat().st_mtime
        kept = folder.glob("*/kernels.*.nbi") if folder else ()
        return any(index.stat().st_mtime >= changed for index in kept)
    except OSError:
        return False


@functools.cache
def _load() -> ModuleType:
    with _lock:
        import numba.core.config

        config: Any = numba.core.config
        # numba asks where to keep a function when it is defined.
        before, folder = config.CACHE_DIR, place()
        if folder is not None:
            config.CACHE_DIR = str(folder)
        try:
            from qwd.quantize import kernels
        finally:
            config.CACHE_DIR = before
        return kernels
