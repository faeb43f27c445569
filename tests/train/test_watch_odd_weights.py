"""The figures of weights that are equal, sparse, of other formats, or none at all."""

import math

import pytest
import torch
from torch import nn

from qwd.train.watch import Watch
from tests.train.plain_figures import double, reference, watched_step


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_other_formats(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Linear(40, 50, bias=False).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model(torch.randn(4, 40, dtype=dtype)).square().mean().backward()
    u, g = double([model.weight]), double([model.weight.grad])
    row = watched_step(Watch(model, optimizer), optimizer.step)
    for name, value in reference(u, double([model.weight]), g).items():
        assert row[name] == pytest.approx(value, rel=1e-5), name
    assert row["penalty"] == 0


@pytest.mark.parametrize("n", [3, 1000, 12345])
@pytest.mark.parametrize("value", [0.1, 1e-3, -7.7])
def test_equal_weights_have_no_outliers(n: int, value: float) -> None:
    model = nn.ParameterList([torch.full((n, 1), value)])
    row = watched_step(Watch(model, torch.optim.SGD(model.parameters(), lr=0.1)), lambda: None)
    assert (row["outlier_rate"], row["range_over_std"], row["angle"]) == (0, None, 0)


def test_models_without_weights() -> None:
    model = nn.BatchNorm1d(3)
    watch = Watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    row = watched_step(watch, lambda: None)
    assert row["weight_norm"] is None
    assert (row["penalty"], row["dead_channels"]) == (0, None)


def test_sparse_gradients() -> None:
    model = nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.tensor([1, 1, 3])).sum().backward()
    row = watched_step(Watch(model, optimizer), optimizer.step)
    assert row["gradient_norm"] == pytest.approx(math.sqrt(2 * 2**2 + 2))
