"""The parts of the two passes that have borders of their own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwd.quantize import statistics_source
from qwd.quantize.statistics_passes import reach
from qwd.quantize.statistics_source import pieces

from .draws import several


@several
@given(
    mean=st.floats(-1e3, 1e3),
    distance=st.floats(1e-3, 1e3),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_reach_is_the_last_number_inside(mean, distance, dtype):
    low, high = reach(mean, distance, np.dtype(dtype))
    for end, away in ((low, dtype(-np.inf)), (high, dtype(np.inf))):
        assert abs(float(end) - mean) <= distance
        assert abs(float(np.nextafter(end, away)) - mean) > distance


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reach_to_zero_is_not_a_walk_through_its_neighbours(dtype):
    low, high = reach(1.0, 1.0, np.dtype(dtype))
    assert high == 2
    assert -2e-16 < low <= 0
    assert abs(float(np.nextafter(low, dtype(-np.inf))) - 1.0) > 1


def test_reach_ends_with_the_format():
    low, high = reach(0.0, 1e39, np.dtype(np.float32))
    assert (-low, high) == (np.finfo(np.float32).max,) * 2


@pytest.mark.parametrize(
    "w",
    [
        torch.arange(24.0).reshape(2, 3, 4),
        torch.arange(24.0).reshape(2, 3, 4).transpose(0, 2),
        torch.arange(24.0).reshape(2, 3, 4)[:, :, ::2],
        torch.arange(4.0).expand(3, 4),
        torch.tensor(3.0),
        torch.empty(0, 3),
        torch.arange(64.0)[::2],
    ],
)
@pytest.mark.parametrize("copy", [2**21, 3])
def test_pieces_hold_every_element_once(w, copy, monkeypatch):
    monkeypatch.setattr(statistics_source, "COPY", copy)
    found = pieces(w)
    for _ in range(2):
        parts = list(found())
        assert all(part.flags.c_contiguous and part.ndim == 1 for part in parts)
        everything = np.concatenate([np.empty(0), *parts])
        np.testing.assert_array_equal(np.sort(everything), np.sort(w.numpy().ravel()))


def test_close_elements_are_not_copied():
    w = torch.arange(24.0).reshape(2, 3, 4)
    for other in (w, w.transpose(0, 2), w[1], w[:, None]):
        (part,) = pieces(other)()
        assert np.shares_memory(part, w.numpy())
