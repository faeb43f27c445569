"""When the compiled kernels are used, and where they are kept."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qwd.quantize import kernels_loading, kernels_numba
from qwd.quantize.kernels_loading import KEPT, NEW, expect, kernels, place

VARIABLES = ("NUMBA_CACHE_DIR", "QWD_CACHE_DIR", "XDG_CACHE_HOME")


@pytest.fixture
def unloaded(monkeypatch):
    """As in a new process that would load "them"."""
    monkeypatch.setattr(kernels_loading, "_seen", 0)
    monkeypatch.setattr(kernels_loading, "_loaded", lambda: False)
    monkeypatch.setattr(kernels_loading, "_load", lambda: "them")
    return lambda kept: monkeypatch.setattr(kernels_loading, "_kept", lambda: kept)


@pytest.mark.parametrize(("kept", "least"), [(True, KEPT), (False, NEW)])
def test_they_are_loaded_when_that_pays(unloaded, kept, least):
    unloaded(kept)
    assert kernels(least - 1) is None
    assert kernels(1) == "them"


def test_much_work_to_come_is_a_reason(unloaded):
    unloaded(False)
    expect(NEW)
    assert kernels(1) == "them"


def test_what_is_loaded_is_used(monkeypatch):
    loaded = kernels_loading._load()
    monkeypatch.setattr(kernels_loading, "_seen", 0)
    assert kernels(1) is loaded


def test_the_place(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert place() == tmp_path / ".cache" / "qwd" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert place() == Path("/x/qwd/kernels")
    monkeypatch.setenv("QWD_CACHE_DIR", "/q")
    assert place() == Path("/q/kernels")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/n")
    assert place() == Path("/n")


@pytest.mark.parametrize("age", [-10, 10])
def test_older_ones_are_not_kept(monkeypatch, tmp_path, age):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QWD_CACHE_DIR", str(tmp_path))
    kept = kernels_loading._kept.__wrapped__
    assert not kept()
    index = tmp_path / "kernels" / "quantize_0" / "kernels.moments-1.nbi"
    index.parent.mkdir(parents=True)
    index.touch()
    source = Path(kernels_loading.__file__).with_name("kernels.py").stat().st_mtime
    os.utime(index, (source + age, source + age))
    assert kept() == (age > 0)


def script(text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES} | variables
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )


def test_a_small_network_does_not_wait_for_numba():
    made = script(
        "import sys, torch; from qwd.quantize.channels import channel_figures\n"
        "channel_figures(torch.randn(64, 1000)); print('numba' in sys.modules)"
    )
    assert (made.stdout, made.stderr, made.returncode) == ("False\n", "", 0)


MOMENTS = """
import numpy as np
from qwd.quantize import kernels_loading
from numba.core import config
before = config.CACHE_DIR
engine = kernels_loading._load()
lows, highs, sums = np.empty(1, np.float32), np.empty(1, np.float32), np.empty((1, 4))
engine.moments(np.array([1, 5], np.float32), 256, 1.0, lows, highs, sums)
print(lows[0], highs[0], sums[0].tolist(), config.CACHE_DIR == before)
"""


def test_kernels_are_kept_in_their_place(tmp_path):
    made = script(MOMENTS, QWD_CACHE_DIR=str(tmp_path))
    assert (made.stdout, made.stderr) == ("1.0 5.0 [4.0, 16.0, 64.0, 256.0] True\n", "")
    assert list(tmp_path.glob("kernels/*/kernels.moments-*.nbi"))


def test_a_place_that_cannot_be_written_is_no_fault(tmp_path):
    file = tmp_path / "file"
    file.touch()
    made = script(MOMENTS, QWD_CACHE_DIR=str(file))
    assert (made.stdout, made.stderr) == ("1.0 5.0 [4.0, 16.0, 64.0, 256.0] True\n", "")


def test_no_place_at_all_is_no_fault(monkeypatch):
    options = []

    def njit(**given):
        options.append(given)
        if given.get("cache"):
            raise RuntimeError("cannot cache function 'double': no locator available")
        return lambda function: function

    monkeypatch.setattr(kernels_numba.numba, "njit", njit)
    double = kernels_numba.compiled(lambda x: 2 * x)
    assert double(2) == 4
    assert [given.get("cache", False) for given in options] == [True, False]


def test_patterns_are_counted():
    x = np.random.default_rng(0).integers(0, 2**16, 10_001, dtype=np.uint16)
    counts = np.empty(2**16, np.int64)
    kernels_loading._load().patterns(x, counts)
    np.testing.assert_array_equal(counts, np.bincount(x, minlength=2**16))
