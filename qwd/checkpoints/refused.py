"""Why a file is refused: a reason inside the package, an InputError of one line outside."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from qwd.errors import InputError, reason
from qwd.printable import printable


class RefusedError(Exception):
    """What a file is, or holds, that cannot be read; ``right`` says what would be."""

    def __init__(self, why: str, right: str = ""):
        super().__init__(why)
        self.right = right


def shown(text: object, most: int = 1000) -> str:
    r"""A name or a path on one line: what is not printable as its escape, ``\x1b``."""
    whole = str(text)
    return printable(whole if len(whole) <= most else whole[: most - 3] + "...")


@contextlib.contextmanager
def reading(path: Path, how: str = "", right: str = "") -> Iterator[None]:
    """Turn whatever reading ``path`` raises into an InputError of one line.

        cannot read PATH<how>: why; expected <right>

    A damaged or hostile file may bring any library to raise anything; a fault of qwd shows as the
    cause under ``--debug``.
    """
    try:
        yield
    except InputError:
        raise
    except RefusedError as error:
        end = f"; expected {error.right or right}" if error.right or right else ""
        raise InputError(f"cannot read {shown(path)}{how}: {error}{end}") from error
    except RecursionError as error:
        raise InputError(f"cannot read {shown(path)}{how}: it is nested too deeply") from error
    except MemoryError as error:
        raise InputError(f"cannot read {shown(path)}{how}: it does not fit memory") from error
    except OSError as error:
        why = error.strerror or reason(error)
        raise InputError(f"cannot read {shown(path)}{how}: {why}") from error
    except Exception as error:
        raise InputError(f"cannot read {shown(path)}{how}: {shown(reason(error))}") from error
