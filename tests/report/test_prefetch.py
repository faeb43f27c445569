"""What is asked of the system before a report: the beginning of the files, and no more."""

import os
from pathlib import Path

import pytest

from qwd.report import prefetch


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The inode and start of every request."""
    requests: list[tuple[int, int]] = []

    def note(handle: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        requests.append((os.fstat(handle).st_ino, start))

    if not hasattr(os, "posix_fadvise"):
        pytest.skip("the system takes no requests")
    monkeypatch.setattr(os, "posix_fadvise", note)
    return requests


def of(path: Path, *starts: int) -> list[tuple[int, int]]:
    return [(path.stat().st_ino, start) for start in starts]


def test_files_and_folders_up_to_a_limit(
    tmp_path: Path, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shards" / "within").mkdir(parents=True)
    files = [tmp_path / "one", tmp_path / "shards" / "a", tmp_path / "shards" / "b"]
    for file in files:
        file.write_bytes(bytes(250))
    monkeypatch.setattr(prefetch, "STEP", 100)
    monkeypatch.setattr(prefetch, "MOST", 600)
    prefetch._ask([tmp_path / "one", tmp_path / "absent", tmp_path / "shards"])
    expected = [of(files[0], 0, 100, 200), of(files[1], 0, 100, 200), of(files[2], 0)]
    assert asked == [request for requests in expected for request in requests]


def test_it_is_done_beside(tmp_path: Path, asked: list[tuple[int, int]]) -> None:
    (tmp_path / "a").write_bytes(bytes(9))
    prefetch.prefetch([tmp_path / "a"])
    for thread in prefetch.threading.enumerate():
        if thread.daemon and thread.name.endswith("(_ask)"):
            thread.join()
    assert asked == of(tmp_path / "a", 0)
