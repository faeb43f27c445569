"""What every test starts from: no settings from outside, one thread, a terminal of 100 columns."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.commands import cifar_folder

# Several test processes run at once, one per core.
torch.set_num_threads(1)
# The same examples in every run, however slow the machine.
settings.register_profile("qwd", derandomize=True, deadline=None)
settings.load_profile("qwd")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> None:
    """No ``QWD_*`` variable from outside, and a cache of one's own."""
    for name in [name for name in os.environ if name.startswith("QWD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("QWD_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def cifar(tmp_path_factory) -> Path:
    """A few hundred real images of CIFAR-10 (JPEG) as an image folder; skips without them."""
    return cifar_folder(tmp_path_factory.mktemp("cifar"))
