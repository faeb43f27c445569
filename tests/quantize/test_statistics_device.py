"""The two passes on a GPU: interpreted on the CPU, and on a GPU where there is one."""

import math
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwd.quantize import statistics, statistics_device
from qwd.quantize.figures import WeightFigures
from qwd.quantize.statistics import weight_figures

from .adversarial import ADVERSARIAL, check, close, mixed, normal
from .draws import drawn
from .interpreted import interpreted

CPU = torch.device("cpu")
EVERY = (8, 7, 6, 5, 4, 3, 2)
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def kernels():
    pytest.importorskip("triton", reason="needs Triton")
    with interpreted() as module:
        yield module


@pytest.fixture
def use(kernels, monkeypatch):
    """For tensors of the CPU, and for few elements."""
    monkeypatch.setattr(statistics, "_on_gpu", lambda _: True)
    monkeypatch.setattr(statistics_device, "_kernels", lambda *_: kernels)
    monkeypatch.setattr(statistics_device, "_processors", lambda _: 1)
    monkeypatch.setattr(statistics_device, "LEAST", 0)
    monkeypatch.setattr(statistics_device, "NEW", 0)


def both(
    patch: pytest.MonkeyPatch, w: torch.Tensor, bits: tuple[int, ...] = (8, 4)
) -> tuple[WeightFigures, WeightFigures]:
    """What the CPU says, and what the kernels do."""
    found = weight_figures(w, full=False, bits=bits)
    patch.setattr(statistics, "_on_gpu", lambda _: False)
    expected = weight_figures(w, full=False, bits=bits)
    patch.setattr(statistics, "_on_gpu", lambda _: True)
    return expected, found


def same_codes(patch: pytest.MonkeyPatch, w: torch.Tensor) -> None:
    """Codes are counted as the CPU does, one by one."""
    one, other = [], []
    for assembled, gpu in ((one, True), (other, False)):
        patch.setattr(statistics, "_on_gpu", lambda _, gpu=gpu: gpu)
        patch.setattr(
            statistics, "assemble", lambda _, codes, *rest, to=assembled: to.append(codes)
        )
        weight_figures(w, full=False, bits=EVERY)
    for found, expected in zip(one[0].counts, other[0].counts, strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial(name, use, monkeypatch):
    monkeypatch.setattr(statistics_device, "TILE", 2**13)
    w = ADVERSARIAL[name]
    before = w.clone()
    check(w, weight_figures(w, full=False, bits=(8, 4)))
    assert torch.equal(w.nan_to_num(), before.nan_to_num())


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 700),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    tile=st.sampled_from([64, 256]),
    damaged=st.booleans(),
)
def test_as_on_the_cpu(use, seed, n, dtype, tile, damaged):
    w = drawn(seed, n, dtype)
    if damaged:
        w[n // 3], w[n // 2], w[-1] = math.inf, math.nan, -math.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics_device, "TILE", tile)
        expected, found = both(patch, w)
    close(asdict(found), asdict(expected))


@pytest.mark.parametrize("n", [1, 63, 64, 65, 64 * 4, 64 * 4 + 1, 64 * 9 - 1])
def test_borders_of_tiles(n, use, monkeypatch):
    monkeypatch.setattr(statistics_device, "TILE", 64)
    w = normal(n) * 0.02
    check(w, weight_figures(w, full=False, bits=(8, 3)))


def test_ties_round_to_even(use, monkeypatch):
    w = torch.cat([torch.arange(0, 511) / 2, torch.tensor([0.0, 255.0])])
    check(w, weight_figures(w, full=False))
    same_codes(monkeypatch, w)


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e20])
def test_codes_near_a_tie_are_those_of_the_division(size, use, monkeypatch):
    scale = size * 0.7 / 255
    ties = (np.arange(255) + 0.5) * scale
    near = [np.nextafter(ties, np.inf), np.nextafter(ties, 0), ties * (1 + 1e-13)]
    w = torch.from_numpy(np.concatenate([[0.0, 255 * scale], ties, *near]))
    same_codes(monkeypatch, w)
    same_codes(monkeypatch, w.float())


def test_float8(use, monkeypatch):
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        expected, found = both(monkeypatch, normal(3000).to(dtype))
        close(asdict(found), asdict(expected))


def test_nothing(use):
    assert weight_figures(torch.empty(0, 3), full=False).a is None
    lost = torch.full((3000,), math.nan)
    lost[7] = math.inf
    found = weight_figures(lost, full=False)
    assert (found.nan, found.inf, found.a) == (2999, 1, None)


def test_a_sample_without_a_number(use, monkeypatch):
    w = torch.full((6400,), math.nan)
    w[5:90] = normal(85)
    expected, found = both(monkeypatch, w)
    assert found == expected


def test_the_origin_is_the_median_of_a_sample_unless_the_mean_is_far(use, monkeypatch):
    origins = []
    passes = statistics_device._both_passes

    def watched(*given):
        origins.append((given[-1], passes(*given).origin))
        return passes(*given)

    monkeypatch.setattr(statistics_device, "_both_passes", watched)
    near = normal(64 * 30) + 5
    near[60] = math.nan
    weight_figures(near, full=False)
    sample = near[::30]
    middle = sample[sample.isfinite()].sort().values[31].item()
    assert origins == [(None, middle)]
    origins.clear()
    far = 1e4 + normal(64 * 1000)
    far[::1000] = 0
    check(far, weight_figures(far, full=False))
    mean = pytest.approx(far.double().mean().item(), rel=1e-6)
    assert origins == [(None, 0), (mean, mean)]


def test_few_elements_are_left_to_the_cpu(monkeypatch):
    monkeypatch.setattr(statistics_device, "_kernels", lambda *_: pytest.fail("loaded"))
    monkeypatch.setattr(statistics_device, "_seen", 0)
    monkeypatch.setattr(statistics_device, "LEAST", 1000)
    monkeypatch.setattr(statistics_device, "NEW", 5000)
    for n in (999, 999, 999, 999, 999, 999, 1000, 3999):
        assert statistics_device.found(normal(n), (8,)) is None
    with pytest.raises(pytest.fail.Exception, match="loaded"):
        statistics_device.found(normal(1000), (8,))


def test_a_copy_that_does_not_fit_is_made_on_the_cpu(use, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(statistics_device, "_measured", full)
    assert weight_figures(torch.ones(3), full=False).a == 1


class TestWhereKernelsDoNotRun:
    """The CPU measures."""

    @pytest.fixture(autouse=True)
    def capable(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
        monkeypatch.setattr(statistics_device, "_processors", lambda _: 1)
        statistics_device._kernels.cache_clear()
        yield
        statistics_device._kernels.cache_clear()

    def test_there_is_no_triton(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "triton", None)
        monkeypatch.delitem(sys.modules, "qwd.quantize.kernels_device", raising=False)
        assert statistics_device._kernels(CPU, torch.float16) is None

    def test_the_gpu_is_old(self, kernels, monkeypatch):
        assert statistics_device._kernels(CPU, torch.float16) is kernels
        statistics_device._kernels.cache_clear()
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
        assert statistics_device._kernels(CPU, torch.float16) is None

    @pytest.mark.parametrize("what", ["count", "count_beyond"])
    def test_they_count_wrongly(self, what, kernels, monkeypatch):
        monkeypatch.setattr(kernels.table, what, lambda *_: None)
        assert statistics_device._kernels(CPU, torch.float16) is None

    def test_there_is_no_room_to_try_them_but_later_there_is(self, kernels, monkeypatch):
        monkeypatch.setattr(statistics_device, "LEAST", 0)
        monkeypatch.setattr(statistics_device, "NEW", 0)

        def full(*_):
            raise torch.OutOfMemoryError

        with monkeypatch.context() as patch:
            patch.setattr(statistics_device, "_measured", full)
            assert statistics_device.found(torch.ones(3), (8,)) is None
        assert statistics_device._kernels(CPU, torch.float32) is kernels

    def test_they_are_not_compiled(self, kernels, monkeypatch):
        monkeypatch.setattr(kernels, "rounding", None)
        assert statistics_device._kernels(CPU, torch.float16) is None


@pytest.fixture
def every_size(monkeypatch):
    """On a GPU, for few elements too, and not on the CPU where the kernels fail."""
    monkeypatch.setattr(statistics_device, "LEAST", 0)
    monkeypatch.setattr(statistics_device, "NEW", 0)
    here = torch.device("cuda", torch.cuda.current_device())
    assert statistics_device.runs_on(here, torch.float32)


@on_a_gpu
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_on_a_gpu(name, every_size):
    w = ADVERSARIAL[name]
    check(w, weight_figures(w.cuda(), full=False, bits=(8, 6, 4)))


@on_a_gpu
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.float8_e4m3fn]
)
@pytest.mark.parametrize("n", [1, 2047, 2048, 2_000_003])
def test_a_gpu_says_what_the_cpu_does(dtype, n, every_size):
    for w in (normal(n) * 0.02, mixed().repeat(n // 40_000 + 1)[:n] * 3 + 1):
        w = w.to(dtype)
        found = weight_figures(w.cuda(), full=False, bits=EVERY)
        close(asdict(found), asdict(weight_figures(w, full=False, bits=EVERY)))
        assert found == weight_figures(w.cuda(), full=False, bits=EVERY)


@on_a_gpu
def test_not_aligned_on_a_gpu(every_size):
    w = normal(3_000_001)
    check(w[1:], weight_figures(w.cuda()[1:], full=False))
    check(w[1:].double(), weight_figures(w.double().cuda()[1:], full=False))


@on_a_gpu
def test_more_than_2_31_elements(every_size):
    n = 2**31 + 5000
    if torch.cuda.mem_get_info()[0] < 5 * n:
        pytest.skip("needs 11 GB on the GPU")
    w = torch.zeros(n, dtype=torch.bfloat16, device="cuda")
    w[-5:], w[:3], w[2**31 - 1] = 1.0, -1.0, math.nan
    found = weight_figures(w, full=False)
    assert (found.nan, found.zeros, found.a, found.b) == (1, n - 9, -1.0, 1.0)
    assert (found.codes_used, found.outliers["sigma>6"]) == (3, 8)
