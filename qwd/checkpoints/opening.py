"""Opening a file that may be anything: only regular files, never waiting, mapped and not copied."""

import errno
import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from qwd.checkpoints.refused import RefusedError, shown
from qwd.errors import InputError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}

FLAGS = os.O_RDONLY
for _flag in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"):
    FLAGS |= getattr(os, _flag, 0)  # not every system has all of them


@dataclass(frozen=True)
class Opened:
    """A regular file, mapped read-only."""

    path: Path
    data: memoryview
    """all bytes; the mapping lives as long as what refers to it"""
    identity: tuple[int, ...]

    def still_the_same(self) -> None:
        """RefusedError where ``path`` no longer leads to the bytes that were checked."""
        if _identity(os.stat(self.path)) != self.identity:
            raise RefusedError("it changed while it was read")


def opened(path: Path) -> Opened:
    """The file at ``path``; InputError where there is none, RefusedError where it is no file.

    The kind is looked up before opening, because opening a pipe waits for a writer and opening a
    device may do something; after opening it is looked up again.
    """
    _check_kind(path, _status(path))
    handle = os.open(path, FLAGS)
    try:
        status = os.fstat(handle)
        _check_kind(path, status)
        if status.st_size == 0:
            raise RefusedError("it is empty", "a state dict")
        data = memoryview(mmap.mmap(handle, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(handle)
    return Opened(path, data, _identity(status))


def _status(path: Path) -> os.stat_result:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise InputError(f"{shown(path)} is a link to a file that does not exist") from error
        raise InputError(f"{shown(path)} does not exist") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{shown(path)} is a link that leads to itself") from error
        raise


def _check_kind(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise InputError(f"{shown(path)} is no file: it is {kind}")


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
