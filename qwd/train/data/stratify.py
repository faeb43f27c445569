"""A part held out for validation: fixed, and with the classes in their proportions."""

import numpy as np

from qwd.errors import InputError

RANDOM_STATE = 20240229
"""Arbitrary and fixed: the held-out part does not depend on the seed of a training."""


def held_out(labels: np.ndarray, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Positions (kept, held out), int64 and ascending, of ``labels`` int64 [n].

    ``count`` are held out, default a tenth. Classes of one image are kept whole; where there are
    too few images to hold out one of each class, the choice is made without regard to classes.
    Raises InputError for fewer than two labels.
    """
    from sklearn.model_selection import train_test_split  # slow to import

    n = len(labels)
    if n < 2:
        raise InputError(f"{n} training images: expected at least 2, one of them for validation")
    count = max(1, round(n / 10)) if count is None else count
    _, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    pool = np.flatnonzero(sizes[place] > 1)
    classes = int((sizes > 1).sum())
    stratified = 0 < classes <= min(count, len(pool) - count)
    if not stratified:
        pool = np.arange(n)
    _, taken = train_test_split(
        pool,
        test_size=count,
        stratify=labels[pool] if stratified else None,
        random_state=RANDOM_STATE,
    )
    taken = np.sort(taken)
    return np.setdiff1d(np.arange(n), taken), taken
