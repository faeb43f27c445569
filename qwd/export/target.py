"""Where an exported file goes, and which files it may replace."""

import mmap
import os
from pathlib import Path

from qwd.errors import UsageError
from qwd.export.formats import MARK, Format
from qwd.files import check_writable
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
        if path.suffix != f".{format.name}" or os.path.isdir(path):
            raise UsageError(f"--out {str(out)!r}: expected a file that ends in .{format.name}")
    else:
        path = (
            source / f"model-{ending}" if os.path.isdir(source) else Path(f"{source.stem}-{ending}")
        )
    if os.path.exists(path) and not is_export(path):
        raise UsageError(f"{path} exists and is no file of `qwd export`: choose another --out")
    check_writable(path)
    return path


def is_export(path: Path) -> bool:
    """Whether `qwd export` wrote the file at ``path``: all formats hold metadata as plain bytes."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(MARK.encode()) >= 0
