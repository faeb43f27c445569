"""Folders of images, their mistakes, and the cache of what was decoded."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qwd.errors import InputError, UsageError
from qwd.train.data import cache, imagefolder, load
from qwd.train.vision import datasets, functional

CPU = torch.device("cpu")
ARCHIVE = Path(__file__).parents[2].parent / "shared" / "data" / "cifar10-jpeg.tgz"
PLAIN = {"mean": (0.0,), "std": (1.0,)}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("QWD_CACHE_DIR", str(folder))
    return folder


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


def make(root, parts=("train", "test"), classes=("cat", "dog"), n=12, size=(8, 8)):
    noise = np.random.default_rng(0)
    for part in parts:
        for label in classes:
            (root / part / label).mkdir(parents=True, exist_ok=True)
            for number in range(n):
                pixels = noise.integers(0, 256, (size[1], size[0], 3), np.uint8)
                Image.fromarray(pixels).save(root / part / label / f"{number:02}.png")
    return root


def images_of(split):
    """uint8 [n, 3, H, W], from a split with mean 0 and std 1."""
    found = torch.cat([x for x, _ in split.batches(None, 7, device=CPU)])
    return np.rint(found.numpy() * 255).astype(np.uint8)


def loaded(root, **options):
    return load(f"imagefolder:{root}", **PLAIN, **options)


def test_images_and_labels_are_those_of_torchvision(tmp_path):
    root = make(tmp_path / "images")
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    grey.save(root / "test" / "cat" / "grey.PNG")
    (root / "test" / "cat" / "notes.txt").write_text("not an image")
    data = loaded(root)
    expected = datasets.ImageFolder(str(root / "test"))
    assert data.classes == tuple(expected.classes) == ("cat", "dog")
    assert data.test.labels.tolist() == expected.targets
    stacked = np.stack(
        [np.asarray(image).transpose(2, 0, 1) for image, _ in map(expected.__getitem__, range(25))]
    )
    assert np.array_equal(images_of(data.test), stacked)
    assert (len(data.train), len(data.validation)) == (22, 2)
    assert (data.in_channels, data.image_size, data.test_name) == (3, 8, "test")


@pytest.mark.parametrize(
    ("parts", "sizes", "test_name"),
    [
        (("train", "test"), (22, 2, 24), "test"),
        (("train", "val"), (22, 2, 24), "val"),
        (("train", "val", "test"), (24, 24, 24), "test"),
    ],
)
def test_parts(tmp_path, parts, sizes, test_name):
    data = loaded(make(tmp_path / "images", parts))
    assert (len(data.train), len(data.validation), len(data.test)) == sizes
    assert data.test_name == test_name


def test_image_size_is_of_the_shorter_side_and_cut_to_the_centre(tmp_path):
    root = make(tmp_path / "images", n=2, size=(40, 20))
    found = images_of(loaded(root, image_size=10).test)
    folder = datasets.ImageFolder(str(root / "test"))
    for got, (path, _) in zip(found, folder.samples, strict=True):
        image = folder.loader(path)
        tensor = functional.pil_to_tensor(image)
        short = functional.resize(tensor, [10], antialias=True)
        expected = functional.center_crop(short, [10, 10]).numpy()
        assert np.abs(got.astype(int) - expected).max() <= 1


def fails(kind, root, *words, **options):
    with pytest.raises(kind) as caught:
        loaded(root, **options)
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line


def test_sizes_that_differ(tmp_path):
    root = make(tmp_path / "images")
    Image.new("RGB", (9, 8)).save(root / "train" / "dog" / "zz.png")
    fails(UsageError, root, "is 8x8", "zz.png is 9x8", "--image-size")
    assert loaded(root, image_size=8).image_size == 8


def test_sizes_that_differ_between_parts(tmp_path):
    root = make(make(tmp_path / "images", ["train"]), ["test"], size=(6, 6))
    fails(UsageError, root, "8x8 in train/", "6x6 in test/", "--image-size")


def test_images_that_are_not_square(tmp_path):
    root = make(tmp_path / "images", size=(9, 6))
    fails(UsageError, root, "00.png is 9x6", "--image-size 6")


def test_what_is_missing(tmp_path):
    fails(InputError, tmp_path / "nowhere", "nowhere: no such folder")
    fails(InputError, "", "no such folder")
    root = make(tmp_path / "a", ["test"])
    fails(InputError, root, "expected train/ and test/ or val/", "found test/")
    root = make(tmp_path / "b", ["train"])
    fails(InputError, root, "found train/")
    (root / "test").mkdir()
    fails(InputError, root, "test", "class folder")
    make(root, ["test"])
    (root / "test" / "emu").mkdir()
    fails(InputError, root, "test", "emu")
    (root / "test" / "emu").rmdir()
    make(root, ["test"], ["fox"])
    fails(InputError, root, "has fox besides")
    make(root, ["train"], ["fox", "gnu"])
    fails(InputError, root, "lacks gnu")


@pytest.mark.parametrize("content", [b"", b"no image", "cut short"])
def test_a_corrupt_image_is_named(tmp_path, cache_folder, content):
    root = make(tmp_path / "images")
    bad = root / "train" / "cat" / "05.png"
    bad.write_bytes(bad.read_bytes()[:90] if isinstance(content, str) else content)
    fails(InputError, root, "cannot read image", str(bad))
    assert not list(cache_folder.glob("*"))


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    root = make(tmp_path / "images")
    Image.new("RGB", (20, 20)).save(root / "train" / "dog" / "bomb.png")
    for limit in (300, 100):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        fails(InputError, root, "bomb.png", "decompression bomb", image_size=8)


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


@pytest.mark.skipif(not ARCHIVE.exists(), reason=f"{ARCHIVE} is not on this machine")
def test_on_jpegs_of_cifar10(tmp_path):
    wanted: dict[str, int] = {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            folder = str(Path(member.name).parent)
            if member.isfile() and wanted.get(folder, 0) < 3:
                wanted[folder] = wanted.get(folder, 0) + 1
                archive.extract(member, tmp_path / "images", filter="data")
            if len(wanted) >= 20 and min(wanted.values()) == 3:
                break
    data = loaded(next((tmp_path / "images").rglob("train")).parent)
    assert (len(data.train) + len(data.validation), len(data.test)) == (30, 30)
    assert (data.num_classes, data.image_size, data.default_augment) == (10, 32, "crop-flip")
    assert 90 < images_of(data.test).mean() < 150
