"""Keeping what libraries do beside their work away from the user."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warning, log record or line on stderr of any library inside; all as it was afterwards.

    So is torch's generator of random numbers, which some libraries move for weights that they then
    replace. All this belongs to the whole process, so that other threads are silent meanwhile too:
    only calls of libraries are to be wrapped in it.
    """
    root, placeholder = logging.getLogger(), logging.NullHandler()
    before = root.manager.disable
    # logging.warning() installs a handler of its own where the root logger has none.
    root.addHandler(placeholder)
    logging.disable(logging.CRITICAL)
    try:
        # torch.export prints the graph that it could not trace.
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
            torch.random.fork_rng(devices=[]),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        root.removeHandler(placeholder)
