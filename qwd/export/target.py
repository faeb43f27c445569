"""Where an exported file goes, and which files it may replace."""

import mmap
import tempfile
from pathlib import Path

from qwd.errors import StorageError, UsageError
from qwd.export.formats import MARK, Format
from qwd.quantize.schemes import Scheme


def target(source: Path, format: Format, scheme: Scheme, out: str | Path | None) -> Path:
    """The file to write: ``out``, or one named after the scheme beside the run's files.

    A checkpoint's goes to the present folder, under the checkpoint's name. Raises UsageError where
    ``out`` does not end as the format's files do, or where a file is there that `qwd export` did
    not write; StorageError where nothing can be written.
    """
    ending = f"{scheme.full_name}.{format.name}"
    if out is not None:
        path = Path(out)
        if path.suffix != f".{format.name}" or path.is_dir():
            raise UsageError(f"--out {str(out)!r}: expected a file that ends in .{format.name}")
    else:
        path = source / f"model-{ending}" if source.is_dir() else Path(f"{source.stem}-{ending}")
    if path.exists() and not is_export(path):
        raise UsageError(f"{path} exists and is no file of `qwd export`: choose another --out")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        # Permissions alone do not tell of file systems that take nothing.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def is_export(path: Path) -> bool:
    """Whether `qwd export` wrote the file at ``path``: all formats hold metadata as plain bytes."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(MARK.encode()) >= 0
