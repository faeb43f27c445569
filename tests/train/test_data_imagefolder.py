"""Folders of images and their mistakes."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qwd.errors import InputError, UsageError
from qwd.train.vision import datasets, functional

from .data_folders import cache_folder, images_of, loaded, make

ARCHIVE = Path(__file__).parents[2].parent / "shared" / "data" / "cifar10-jpeg.tgz"
__all__ = ["cache_folder"]


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
