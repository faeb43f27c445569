"""Functional figures against independent computations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import log_softmax

from qwd.report.function import finite, functional_figures


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 80),
    classes=st.integers(2, 12),
    noise=st.floats(0, 3),
)
def test_equals_numpy_and_scipy(seed: int, n: int, classes: int, noise: float) -> None:
    generator = np.random.default_rng(seed)
    reference = generator.normal(size=(n, classes)).astype(np.float32) * 4
    quantized = (reference + generator.normal(size=reference.shape) * noise).astype(np.float32)
    labels = generator.integers(0, classes, n)
    made = functional_figures(*map(torch.from_numpy, (reference, quantized, labels)))

    right, right_quantized = reference.argmax(1) == labels, quantized.argmax(1) == labels
    assert made["accuracy"] == right_quantized.mean()
    assert made["drop_pp"] == pytest.approx(100 * (right.mean() - right_quantized.mean()))
    assert made["flip_n"] == (reference.argmax(1) != quantized.argmax(1)).sum()
    assert made["flip_rate"] == made["flip_n"] / n
    log_p, log_q = (log_softmax(o.astype(np.float64), axis=1) for o in (reference, quantized))
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()
    assert made["kl"] == pytest.approx(kl, rel=1e-6, abs=1e-12)
    b, c = (right & ~right_quantized).sum(), (~right & right_quantized).sum()
    # The exact test doubles the smaller tail of Binomial(b + c, 1/2).
    tail = 2 * stats.binom.cdf(min(b, c), b + c, 0.5) if b + c else 1.0
    assert made["mcnemar_p"] == pytest.approx(min(tail, 1.0))


def test_equal_outputs_lose_nothing() -> None:
    outputs = torch.randn(20, 5)
    made = functional_figures(outputs, outputs, torch.zeros(20, dtype=torch.int64))
    assert (made["drop_pp"], made["flip_n"], made["kl"], made["mcnemar_p"]) == (0, 0, 0, 1)


def test_finite() -> None:
    assert finite(torch.ones(3))
    assert not finite(torch.tensor([1.0, float("nan")]))
    assert not finite(torch.tensor([1.0, float("inf")]))
