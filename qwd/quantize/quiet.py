"""Keeping what libraries say among themselves away from the user."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warning, log record or line on stderr of any library inside; all as it was afterwards.

    These belong to the whole process, so that other threads are silent meanwhile too: only calls
    of libraries are to be wrapped in it.
    """
    root, placeholder = logging.getLogger(), logging.NullHandler()
    before = root.manager.disable
    # logging.warning() installs a handler of its own where the root logger has none.
    root.addHandler(placeholder)
    logging.disable(logging.CRITICAL)
    try:
        # torch.export prints the graph that it could not trace.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        root.removeHandler(placeholder)
