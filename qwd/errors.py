"""The errors a user sees: one line each, with the exit code of the command line.

Every message says what is wrong, with the value, and what would be right.
"""

import contextlib
from collections.abc import Iterator


class QwdError(Exception):
    """Base of every error that is the input's or the machine's fault, not qwd's."""

    exit_code = 70


class UsageError(QwdError):
    """Wrong use: an option, a configuration key, a name, or an extra that is not installed."""

    exit_code = 2


class InputError(QwdError):
    """An input cannot be read, is unsafe, or cannot be compared with the other one."""

    exit_code = 3


class StorageError(QwdError):
    """I/O: the disk is full, the place is not writable, or another process uses it."""

    exit_code = 4


class VerificationError(QwdError):
    """A check of qwd's own result failed, for example nothing was quantized."""

    exit_code = 5


class DivergedError(QwdError):
    """Training produced a loss that is not finite."""

    exit_code = 6


def reason(error: Exception, most: int = 200) -> str:
    """The text of another library's exception on one line of at most ``most`` characters."""
    return " ".join(str(error).split())[:most] or type(error).__name__


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Around the import of an optional dependency; UsageError with the install command."""
    try:
        yield
    except ImportError as error:
        # A package that is there and fails to import something of its own says so itself.
        missing = error.name or reason(error)
        raise UsageError(f"{missing} is not installed: pip install 'qwd[{name}]'") from error
