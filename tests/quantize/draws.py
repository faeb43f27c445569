"""Random weight tensors for the tests of arithmetic and figures, from a seed."""

import math

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

several = settings(derandomize=True, deadline=None, max_examples=12)
seeds = st.integers(0, 2**32 - 1)


def rows(
    seed: int, count: int = 1000, *, least=1e-4, most=1e30, dtype=torch.float32
) -> torch.Tensor:
    """``count`` weight tensors as the rows of one: every size, offset and shape of distribution."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 40))
    size = np.exp(rng.uniform(math.log(least), math.log(most), (count, 1)))
    spread = rng.choice([1.0, 1e-3, 1e-6], (count, 1))
    offset = rng.choice([0.0, 0.0, 1.0, -1.0], (count, 1)) + rng.normal(size=(count, 1)) * 0.1
    normal, heavy = rng.normal(size=(count, n)), rng.standard_t(2, (count, n)).clip(-1e3, 1e3)
    noise = np.where(rng.random((count, 1)) < 0.5, normal, heavy)
    coarse = rng.random((count, 1)) < 0.2  # a few distinct values: many ties
    drawn = np.where(coarse, np.round(noise * 8) / 8, offset + spread * noise) * size
    limits = torch.finfo(dtype)
    return torch.from_numpy(drawn).clamp(limits.min, limits.max).to(dtype)


def drawn(seed: int, n: int, dtype=torch.float32) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    shapes = [
        lambda: rng.normal(size=n),
        lambda: rng.standard_t(1.5, size=n),
        lambda: rng.uniform(-1, 3, size=n),
        lambda: rng.laplace(size=n),
        lambda: rng.integers(-3, 4, size=n) * 0.1,
        lambda: rng.normal(size=n) * (rng.random(n) < 0.05),
        lambda: 100 + rng.normal(size=n),
    ]
    x = shapes[seed % len(shapes)]() * 10.0 ** rng.integers(-6, 6)
    limits = torch.finfo(dtype)
    return torch.from_numpy(x).clamp(limits.min, limits.max).to(dtype)
