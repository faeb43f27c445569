"""Running the installed `qwd` command, and the real images that some tests use."""

import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

QWD = Path(sys.executable).with_name("qwd")
PATIENCE = 120.0
"""seconds after which a command is taken to hang"""
IMAGES = Path(__file__).parents[2] / "shared" / "data" / "cifar10-jpeg.tgz"


def qwd(*args: object, cwd: Path, **options) -> subprocess.CompletedProcess[str]:
    """Run the installed command in ``cwd``; stdout and stderr as text."""
    return subprocess.run(
        [str(QWD), *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=300, **options
    )


def started(*args: object, cwd: Path) -> subprocess.Popen[str]:
    """Start the installed command in ``cwd`` and go on; stdout and stderr as text."""
    return subprocess.Popen(
        [str(QWD), *map(str, args)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Until something holds; the process must not end before."""
    last = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < last
        time.sleep(0.02)


def last_line(text: str) -> str:
    """The last line of an output."""
    return text.rstrip("\n").rsplit("\n", 1)[-1]


def cifar_folder(folder: Path, train: int = 24, test: int = 16) -> Path:
    """Unpack ``train`` and ``test`` images of each class; skips where the archive is absent."""
    if not IMAGES.is_file():
        pytest.skip(f"the real images ({IMAGES.name}) are not here")
    wanted = {"train": train, "test": test}
    seen: dict[str, int] = {}
    with tarfile.open(IMAGES) as archive:
        for member in archive:
            parts = Path(member.name).parts
            if member.isfile() and len(parts) >= 3 and parts[-3] in wanted:
                place = "/".join(parts[-3:-1])
                seen[place] = seen.get(place, 0) + 1
                if seen[place] <= wanted[parts[-3]]:
                    member.name = "/".join(parts[-3:])
                    archive.extract(member, folder, filter="data")
    return folder
