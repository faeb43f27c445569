"""Files that are not what they say: one clear line each, little memory, no waiting."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qwd.checkpoints import read_pickle, read_weights
from qwd.errors import InputError
from tests.checkpoints.making import STATE, saved
from tests.checkpoints.malformed import bombs, malformed
from tests.commands import qwd

MOST_MEMORY = 300 << 20
PROGRAM = """
import sys
from pathlib import Path
from qwd.checkpoints import read_weights
from qwd.errors import InputError
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10
before = peak()
for path in sys.argv[1:]:
    try:
        read_weights(Path(path))
    except InputError:
        print(peak() - before, path)
"""


def refusal(path: Path, key: str | None = None) -> str:
    """The one line with which a path is refused."""
    with pytest.raises(InputError) as caught:
        read_weights(path, key)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    return message


def test_every_malformed_file_is_refused_in_one_line(tmp_path: Path, capfd) -> None:
    seen = set()
    for what, ending, content in malformed():
        assert what not in seen, f"two files are called {what!r}"
        seen.add(what)
        path = tmp_path / f"m{ending}"
        path.write_bytes(content)
        assert str(path) in refusal(path), what
        path.unlink()
    assert len(seen) >= 550
    assert capfd.readouterr() == ("", "")


def test_bombs_take_little_memory(tmp_path: Path) -> None:
    paths = []
    for i, (_, ending, content) in enumerate(bombs()):
        paths.append(tmp_path / f"{i}{ending}")
        paths[-1].write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *paths], check=True, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths)
    grown = {line.split()[1]: int(line.split()[0]) for line in lines}
    assert max(grown.values()) < MOST_MEMORY, grown


def test_the_command_says_it_in_one_line_with_exit_code_3(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    done = qwd("quantize-report", "m.pt", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "qwd: error: cannot read m.pt safely: it is a git-lfs pointer, not the file itself "
        "(`git lfs pull` gets it); expected a state dict saved by torch.save\n"
    )


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_what_is_no_file_is_never_opened(tmp_path: Path, ending: str) -> None:
    os.mkfifo(tmp_path / f"pipe{ending}")
    assert "is no file: it is a pipe" in refusal(tmp_path / f"pipe{ending}")
    (tmp_path / f"device{ending}").symlink_to("/dev/zero")
    assert "is no file: it is a device" in refusal(tmp_path / f"device{ending}")
    (tmp_path / f"tty{ending}").symlink_to("/dev/tty")
    assert "it is a device" in refusal(tmp_path / f"tty{ending}")
    (tmp_path / f"folder{ending}").mkdir()
    assert "a folder without" in refusal(tmp_path / f"folder{ending}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / f"s{ending}"))
        assert "is no file: it is a socket" in refusal(tmp_path / f"s{ending}")
    with pytest.raises(InputError, match="is no file: it is a folder"):
        read_pickle(tmp_path)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_links_and_paths_that_lead_nowhere(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"m{ending}"
    assert refusal(path) == f"{path} does not exist"
    assert "does not exist" in refusal(path / "below")
    path.symlink_to(tmp_path / "absent")
    assert "is a link to a file that does not exist" in refusal(path)
    path.unlink()
    path.symlink_to(path)
    assert "is a link that leads to itself" in refusal(path)
    assert "too long" in refusal(tmp_path / ("a" * 300 + ending))
    assert "cannot read" in refusal(Path(f"{tmp_path}/\0{ending}"))
    odd = tmp_path / f"\x1b[31m\n{ending}"
    assert "\\x1b[31m\\n" in refusal(odd)
    (tmp_path / "file").write_bytes(b"")
    assert "does not exist" in refusal(tmp_path / "file" / f"m{ending}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.pt", STATE)
    path.chmod(0)
    assert "Permission denied" in refusal(path)


def test_a_permission_that_is_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    path = saved(tmp_path / "m.pt", STATE)
    monkeypatch.setattr(os, "open", denied)
    assert refusal(path) == f"cannot read {path} safely: Permission denied"


def test_other_endings_are_named(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    assert "expected a file ending in .safetensors or .pt, .pth" in refusal(tmp_path / "m.onnx")
    assert "does not exist" in refusal(tmp_path / "absent.onnx")
    for name in ("M.PT", "model_best.pth.tar", "epoch=3-step=10.ckpt"):
        saved(tmp_path / name, STATE)
        assert list(read_weights(tmp_path / name)) == list(STATE)


def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "m.pt", STATE)
    load = torch.load

    def changing(*args, **options):
        found = load(*args, **options)
        os.utime(path, (1, 1))
        return found

    monkeypatch.setattr(torch, "load", changing)
    assert "it changed while it was read" in refusal(path)


def test_torch_may_still_refuse_what_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object, **options: object) -> None:
        assert options["weights_only"] is True
        raise RuntimeError("Invalid thing. Set weights_only=False to go on.\nMore lines")

    path = saved(tmp_path / "m.pt", STATE)
    monkeypatch.setattr(torch, "load", refusing)
    assert "torch refuses it (Invalid thing)" in refusal(path)
