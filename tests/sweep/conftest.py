"""What the tests of sweeps share."""

import shutil
from pathlib import Path

import pytest

from qwd.sweep import session
from tests.sweep.small import SMALL, Here


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """Cells are computed in this process, and it knows which."""
    executor = Here()
    monkeypatch.setattr(session, "executor_called", lambda name, tasks: ("here", executor))
    return executor


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of four cells, never written to."""
    folder = tmp_path_factory.mktemp("finished") / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "executor_called", lambda name, tasks: ("here", Here()))
        session.sweep(SMALL, out=folder)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "s"))
