"""The tools that others wrote; a test is skipped where one is not installed."""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

import qwd.train.vision  # noqa: F401 - timm imports torchvision, which this makes importable


@pytest.fixture(scope="module")
def timm() -> Any:
    pytest.importorskip("timm.optim", reason="timm is not installed: pip install timm")
    return importlib.import_module("timm")


@pytest.fixture(scope="module")
def others() -> Any:
    reason = "pytorch_optimizer is not installed: pip install pytorch-optimizer"
    return pytest.importorskip("pytorch_optimizer", reason=reason)


@pytest.fixture
def optax() -> Iterator[Any]:
    """optax, with float64 for the length of a test."""
    reason = "optax is not installed: pip install optax (it brings jaxlib, 350 MB)"
    module = pytest.importorskip("optax", reason=reason)
    with pytest.importorskip("jax").enable_x64(True):
        yield module
