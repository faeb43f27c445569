"""Files are whole or untouched, and folders have one user."""

import subprocess
import sys
from pathlib import Path

import pytest

from qwd.errors import StorageError
from qwd.files import sole_user, write_atomically, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_text(path, "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"cannot write .*report.json: No space left on device"):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_text(tmp_path / "file" / "below", "text")
    with pytest.raises(StorageError), sole_user(tmp_path / "file" / "below"):
        pass


def test_a_folder_in_use_by_another_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from qwd.files import sole_user\n"
        "with sole_user(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(StorageError, match="in use by another qwd process"),
            sole_user(tmp_path),
        ):
            pass
        other.communicate("")
    with sole_user(tmp_path):
        pass


def test_an_error_inside_is_not_taken_for_one_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="own"), sole_user(tmp_path):
        raise OSError("own")


def test_links_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    write_text("/dev/null", "text")
    assert Path("/dev/null").is_char_device()
