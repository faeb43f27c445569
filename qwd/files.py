"""Writing without loss: a file is either the old one or the new one, never half of it."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from qwd.errors import StorageError


def check_writable(path: str | Path) -> None:
    """StorageError where no file can be written at ``path``, before the work of making it."""
    path = Path(path)
    folder = next(parent for parent in path.absolute().parents if os.path.exists(parent))
    try:
        with contextlib.suppress(FileNotFoundError):
            path.lstat()
        # Permissions alone do not tell of file systems that take nothing.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call ``write(temporary)`` beside ``path``, flush to disk, then rename over ``path``.

    Raises StorageError when the place is not writable or the disk is full; ``path`` keeps its
    former content then.
    """
    path = Path(path).resolve()  # the file itself, not a link to it
    temporary: Path | None = None
    try:
        if path.exists() and not path.is_file():
            write(path)  # a pipe or a device, which nothing may replace
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes the file private; results are as readable as any other new file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Replace ``path`` by ``text`` in UTF-8, atomically; StorageError as above."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextlib.contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process alone; StorageError while another process holds it."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise StorageError(f"{folder} is in use by another qwd process") from error
    except OSError as error:
        raise StorageError(f"cannot write in {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
