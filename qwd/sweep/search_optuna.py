"""What is taken from Optuna, silently: a storage, a sampler, and errors in one line.

The only module that imports optuna and the database layer below it.
"""

import contextlib
import re
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from qwd.errors import StorageError, UsageError, extra, reason
from qwd.sweep.search_space import TPE

with extra("search"):
    import optuna
    from optuna.samplers import BaseSampler, RandomSampler, TPESampler
    from optuna.trial import FrozenTrial, TrialState
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

__all__ = ["FrozenTrial", "Seeded", "TrialState", "connected", "guarded", "optuna", "shown"]

BEAT, GRACE = 60, 600
"""seconds between signs of life of a trial, and without one after which it is given up"""
PATIENCE = 120.0
"""seconds that another process may hold the database file"""


class Seeded(BaseSampler):
    """What is drawn for a trial follows from the seed and its number, and for TPE from the past.

    So a search that was killed, or that several processes share, draws what one would have.
    """

    def __init__(self, name: str, seed: int):
        self._name, self._seed = name, seed

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, Any]:
        """Nothing is drawn together."""
        return {}

    def sample_relative(self, study: Any, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        """Nothing is drawn together."""
        return {}

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """One setting of one trial."""
        words = [self._seed, trial.number, *param_name.encode()]
        seed = int(np.random.SeedSequence(words).generate_state(1)[0])
        made = TPESampler(seed=seed) if self._name == TPE else RandomSampler(seed=seed)
        return made.sample_independent(study, trial, param_name, param_distribution)


def shown(storage: str) -> str:
    """A storage without its password."""
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except (SQLAlchemyError, ValueError):
        return "storage"


def connected(storage: str) -> Any:
    """A storage at a URL, made where there is none.

    Raises UsageError for what is no URL of a database, or one whose driver is not installed.
    """
    expected = "sqlite:////PLACE/search.db or postgresql://USER@HOST/DATABASE"
    last = time.monotonic() + PATIENCE
    while True:
        try:
            return _connected(storage)
        except ImportError as error:
            name = getattr(error, "name", None) or reason(error)
            raise UsageError(f"--storage {shown(storage)}: {name} is not installed") from error
        except (SQLAlchemyError, ValueError, optuna.exceptions.StorageInternalError) as error:
            cause = _innermost(error)
            if cause is error and not isinstance(error, optuna.exceptions.OptunaError):
                raise UsageError(
                    f"--storage: expected the URL of a database as {expected}"
                ) from error
            # Two processes may make the tables at once; for the later one they are there.
            made_twice = re.search("unique|already exists|duplicate", str(cause), re.IGNORECASE)
            if not made_twice or time.monotonic() > last:
                raise
            time.sleep(0.1)


def _connected(storage: str) -> Any:
    file = make_url(storage).get_backend_name() == "sqlite"
    return optuna.storages.RDBStorage(
        storage,
        engine_kwargs={"connect_args": {"timeout": PATIENCE}} if file else {},
        heartbeat_interval=BEAT,
        grace_period=GRACE,
    )


def _innermost(error: Exception) -> Exception:
    """What the database itself said."""
    while isinstance(inner := getattr(error, "orig", None) or error.__cause__, Exception):
        error = inner
    return error


@contextlib.contextmanager
def guarded(storage: str) -> Iterator[None]:
    """No word of Optuna reaches a user; StorageError, a line, where the storage fails."""
    with _quiet():
        try:
            yield
        except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            raise StorageError(f"{shown(storage)}: {reason(_innermost(error))}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
