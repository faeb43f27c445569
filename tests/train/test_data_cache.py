"""What was decoded is kept, and never trusted where it is not what it should be."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qwd.train.data import cache, imagefolder, load

from .data_folders import cache_folder, images_of, loaded, make

__all__ = ["cache_folder"]


@pytest.fixture
def decodings(monkeypatch):
    """The folders that were decoded, in order."""
    seen = []
    decode = imagefolder._decoded

    def spy(listing, size):
        seen.append(listing.folder.name)
        return decode(listing, size)

    monkeypatch.setattr(imagefolder, "_decoded", spy)
    return seen


def test_decoded_once(tmp_path, cache_folder, decodings):
    root = make(tmp_path / "images")
    first, second = loaded(root), loaded(root)
    assert decodings == ["train", "test"]
    assert len(list(cache_folder.glob("*.npy"))) == 2
    assert not list(cache_folder.glob(".*"))
    assert first.train.sha256() == second.train.sha256()
    assert first.notes == second.notes == ()
    loaded(root, image_size=6)
    assert decodings == ["train", "test"] * 2


def test_a_changed_file_is_decoded_again(tmp_path, decodings):
    root = make(tmp_path / "images")
    before = loaded(root)
    changed = root / "test" / "dog" / "03.png"
    status = changed.stat()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(changed)
    after = loaded(root)
    assert decodings == ["train", "test", "test"]
    assert before.train.sha256() == after.train.sha256()
    assert np.array_equal(images_of(after.test)[15, :, 0, 0], [1, 2, 3])
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    loaded(root)
    changed.rename(changed.with_name("13.png"))
    loaded(root)
    assert decodings == ["train"] + ["test"] * 4


def test_the_same_listing_elsewhere_is_another_folder(tmp_path, decodings):
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    for path in two.rglob("*.png"):
        status = (one / path.relative_to(two)).stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    loaded(one)
    loaded(two)
    assert decodings == ["train", "test"] * 2


def damage_shape(path):
    np.save(path, np.zeros((24, 3, 8, 7), np.uint8))


def damage_dtype(path):
    np.save(path, np.zeros((24, 3, 8, 8), np.int8))


def damage_order(path):
    np.save(path, np.zeros((24, 3, 8, 8), np.uint8, order="F"))


def damage_pickle(path):
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


def damage_archive(path):
    with open(path, "wb") as file:
        np.savez(file, np.zeros((24, 3, 8, 8), np.uint8))


DAMAGES = [
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:-1]),
    lambda path: path.write_bytes(path.read_bytes() + b"x"),
    lambda path: path.write_bytes(b"garbage" * 1000),
    damage_shape,
    damage_dtype,
    damage_order,
    damage_pickle,
    damage_archive,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_anew(tmp_path, cache_folder, decodings, damage):
    root = make(tmp_path / "images")
    digests = [loaded(root).train.sha256(), loaded(root).test.sha256()]
    for path in cache_folder.glob("*.npy"):
        damage(path)
    data = loaded(root)
    assert [data.train.sha256(), data.test.sha256()] == digests
    assert data.notes == ()
    assert decodings == ["train", "test"] * 2
    loaded(root)
    assert len(decodings) == 4


def test_without_a_place_for_the_cache_images_stay_in_memory(tmp_path, monkeypatch, decodings):
    root = make(tmp_path / "images")
    digest = loaded(root).train.sha256()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("QWD_CACHE_DIR", str(tmp_path / "file" / "cache"))
    data = loaded(root)
    assert data.train.sha256() == digest
    assert len(data.notes) == 2
    assert "are not kept: cannot write" in data.notes[0]
    assert decodings == ["train", "test"] * 2


def test_a_full_disk_leaves_images_in_memory(tmp_path, monkeypatch, cache_folder):
    root = make(tmp_path / "images")
    digest = loaded(root, image_size=6).train.sha256()

    def full(path, n, chunks):
        next(chunks)
        path.write_bytes(b"a part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_write", full)
    kept = sorted(cache_folder.iterdir())
    data = loaded(root)
    assert "No space left on device" in data.notes[0]
    assert sorted(cache_folder.iterdir()) == kept
    monkeypatch.undo()
    monkeypatch.setenv("QWD_CACHE_DIR", str(cache_folder))
    assert loaded(root, image_size=6).train.sha256() == digest


@pytest.mark.parametrize(
    ("own", "shared", "expected"),
    [("/a", "/b", "/a"), ("", "/b", "/b/qwd"), (None, None, "/home/x/.cache/qwd")],
)
def test_where_the_cache_is(monkeypatch, own, shared, expected):
    monkeypatch.setenv("HOME", "/home/x")
    for name, value in (("QWD_CACHE_DIR", own), ("XDG_CACHE_HOME", shared)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cache.folder() == Path(expected)


def test_processes_may_decode_at_the_same_time(tmp_path, cache_folder):
    root = make(tmp_path / "images")
    code = (
        "from qwd.train.data import load;"
        f"d = load('imagefolder:{root}'); print(d.train.sha256(), d.test.sha256(), d.notes[:-1])"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = {process.communicate()[0] for process in started}
    data = load(f"imagefolder:{root}")
    assert found == {f"{data.train.sha256()} {data.test.sha256()} ()\n"}
    assert len(list(cache_folder.iterdir())) == 2
