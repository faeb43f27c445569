"""torchvision's formats, on tiny files made here; nothing is fetched."""

import gzip
import hashlib
import pickle
import struct
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from qwd.errors import InputError, StorageError
from qwd.train.data import load
from qwd.train.vision import datasets

CPU = torch.device("cpu")
NAMES = ["mnist", "fashion-mnist", "cifar10", "cifar100"]
FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


def idx(array):
    """MNIST's format: magic number, sizes, bytes."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def mnist_files(n=40):
    noise = np.random.default_rng(0)
    for prefix in ("train", "t10k"):
        images, labels = noise.integers(0, 256, (n, 28, 28)), np.arange(n) % 10
        yield f"{prefix}-images-idx3-ubyte", idx(images)
        yield f"{prefix}-labels-idx1-ubyte", idx(labels)


def make_mnist(root, name):
    folder = root / FOLDERS[name] / "raw"
    folder.mkdir(parents=True)
    for file, content in mnist_files():
        (folder / file).write_bytes(content)


@pytest.fixture
def tiny_cifar10(tmp_path, monkeypatch):
    """CIFAR-10's files with 20 images each, and torchvision told of their checksums."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    noise = np.random.default_rng(0)
    checksums = {}
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name in names:
        pixels = noise.integers(0, 256, (20, 3072), np.uint8)
        content = pickle.dumps({"data": pixels, "labels": [i % 10 for i in range(20)]})
        (folder / name).write_bytes(content)
        checksums[name] = hashlib.md5(content).hexdigest()
    content = pickle.dumps({"label_names": list("abcdefghij")})
    (folder / "batches.meta").write_bytes(content)
    cifar = datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", [[name, checksums[name]] for name in names[:5]])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", checksums["test_batch"]]])
    monkeypatch.setitem(cifar.meta, "md5", hashlib.md5(content).hexdigest())
    return tmp_path


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_is_read(tmp_path, name):
    make_mnist(tmp_path, name)
    data = load(name, data_dir=str(tmp_path), mean=(0.0,), std=(1.0,))
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 40)
    assert (data.in_channels, data.image_size, data.num_classes) == (1, 28, 10)
    assert data.default_augment == "none"
    images, labels = next(data.test.batches(None, 40, device=CPU))
    stored = dict(mnist_files())["t10k-images-idx3-ubyte"][16:]
    assert np.rint(images.numpy() * 255).astype(np.uint8).tobytes() == stored
    assert labels.tolist() == [i % 10 for i in range(40)]


def test_cifar_is_read(tiny_cifar10):
    data = load("cifar10", data_dir=str(tiny_cifar10), mean=(0.0,), std=(1.0,))
    assert (len(data.train), len(data.validation), len(data.test)) == (90, 10, 20)
    assert (data.in_channels, data.image_size, data.classes) == (3, 32, tuple("abcdefghij"))
    assert data.default_augment == "crop-flip"
    images, _ = next(data.test.batches(None, 20, device=CPU))
    with open(tiny_cifar10 / "cifar-10-batches-py" / "test_batch", "rb") as file:
        stored = pickle.load(file)["data"]
    assert np.array_equal(np.rint(images.numpy() * 255).reshape(20, 3072), stored)


@pytest.mark.parametrize("name", NAMES)
def test_missing_data_say_what_fetches_them(tmp_path, name):
    with pytest.raises(InputError) as caught:
        load(name, data_dir=str(tmp_path / "nowhere"))
    line = str(caught.value)
    assert "\n" not in line
    for word in (name, str(tmp_path / "nowhere"), "--download", "--data-dir"):
        assert word in line
    assert not (tmp_path / "nowhere").exists()


def test_damaged_files_count_as_missing(tmp_path, tiny_cifar10):
    make_mnist(tmp_path, "mnist")
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    (tiny_cifar10 / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"altered")
    for name in ("mnist", "cifar10"):
        with pytest.raises(InputError, match="no complete copy"):
            load(name, data_dir=str(tmp_path))


def snapshot(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("Temporary failure in name resolution"),
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError("timed out"),
    ],
)
def test_no_network(tmp_path, monkeypatch, capsys, name, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(InputError) as caught:
        load(name, data_dir=str(tmp_path / "data"), download=True)
    line = str(caught.value)
    assert "\n" not in line
    assert f"--data {name}: the download failed" in line
    assert snapshot(tmp_path) == []
    assert capsys.readouterr().out == ""


class Response:
    """An answer of a server that ends, or breaks off after ``whole`` bytes."""

    def __init__(self, url, content, whole=None):
        self.url, self.content, self.whole = url, content, whole
        self.length = len(content)
        self.at = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def read(self, size):
        if self.whole is not None and self.at >= self.whole:
            raise ConnectionResetError(104, "Connection reset by peer")
        self.at += size
        return self.content[self.at - size : self.at]


@pytest.fixture
def server(monkeypatch):
    """A server of Fashion-MNIST's four files; ``break_at`` names one that it breaks off."""
    files = {f"{name}.gz": gzip.compress(content) for name, content in mnist_files()}
    sums = [[name, hashlib.md5(content).hexdigest()] for name, content in files.items()]
    monkeypatch.setattr(datasets.FashionMNIST, "resources", sums)
    state = {"break_at": None, "asked": []}

    def answer(request, *_, **__):
        url = request.full_url
        name = url.rpartition("/")[2]
        state["asked"].append(name)
        whole = 1 if name == state["break_at"] else None
        return Response(url, files[name], whole)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    return state


def test_download(tmp_path, server, capsys):
    folder = tmp_path / "new" / "data"
    data = load("fashion-mnist", data_dir=str(folder), download=True)
    assert len(data.test) == 40
    assert [p.name for p in snapshot(folder)] == sorted(name for name, _ in mnist_files())
    assert capsys.readouterr().out == ""
    asked = len(server["asked"])
    load("fashion-mnist", data_dir=str(folder), download=True)
    assert len(server["asked"]) == asked


def test_damaged_files_are_fetched_again(tmp_path, server):
    make_mnist(tmp_path, "fashion-mnist")
    file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    load("fashion-mnist", data_dir=str(tmp_path), download=True)
    assert file.read_bytes() == whole


def test_a_broken_download_leaves_nothing(tmp_path, server):
    server["break_at"] = "t10k-labels-idx1-ubyte.gz"
    with pytest.raises(InputError, match="the download failed"):
        load("fashion-mnist", data_dir=str(tmp_path), download=True)
    assert snapshot(tmp_path) == []


def test_an_altered_download_leaves_nothing(tmp_path, server, monkeypatch):
    (name, _), *others = datasets.FashionMNIST.resources
    monkeypatch.setattr(datasets.FashionMNIST, "resources", [[name, "0" * 32], *others])
    with pytest.raises(InputError, match="corrupted"):
        load("fashion-mnist", data_dir=str(tmp_path), download=True)
    assert snapshot(tmp_path) == []


def test_no_place_for_the_download(tmp_path, server):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot store in"):
        load("fashion-mnist", data_dir=str(tmp_path / "file" / "data"), download=True)
    assert server["asked"] == []
