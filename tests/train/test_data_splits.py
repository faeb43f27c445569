"""What every split promises, whatever it is made of."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from qwd.train.data import ArraySplit, Data, augmentation, load, load_pair
from qwd.train.data import arrays as arrays_module
from qwd.train.data.arrays import Pixels

CPU = torch.device("cpu")


class Listed(Dataset):
    """Map-style, read item by item, without targets."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        return self.images[row], int(self.labels[row])


def pair(kind, n=60, classes=3):
    generator = torch.Generator().manual_seed(0)

    def part(k):
        return kind(torch.randn(k, 3, 8, 8, generator=generator), torch.arange(k) % classes)

    return part(n), part(n // 2)


def folder(path):
    noise = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            (path / part / label).mkdir(parents=True)
            for number in range(20):
                pixels = noise.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(path / part / label / f"{number:02}.png")
    return f"imagefolder:{path}"


@pytest.fixture(params=["digits", "folder", "tensors", "items"])
def data(request, tmp_path, monkeypatch) -> Data:
    monkeypatch.setenv("QWD_CACHE_DIR", str(tmp_path / "cache"))
    match request.param:
        case "digits":
            return load("digits")
        case "folder":
            return load(folder(tmp_path / "images"))
        case "tensors":
            return load_pair(*pair(TensorDataset))
        case _:
            return load_pair(*pair(Listed))


@pytest.fixture(params=["train", "validation", "test"])
def split(request, data):
    return getattr(data, request.param)


def whole(split, batch_size=10**6, order=None, **options):
    batches = list(split.batches(order, batch_size, device=CPU, **options))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def test_labels_and_batches_agree(split, data):
    images, labels = whole(split, 7)
    assert split.labels.dtype == labels.dtype == torch.int64
    assert torch.equal(labels, split.labels)
    assert images.dtype == torch.float32
    assert images.shape == (len(split), data.in_channels, data.image_size, data.image_size)
    assert images.is_contiguous()
    assert images.isfinite().all()
    assert 0 <= int(labels.min()) <= int(labels.max()) < data.num_classes == len(data.classes)


def test_batch_size_does_not_change_the_images(split):
    for batch_size in (1, 7, len(split)):
        assert torch.equal(whole(split, batch_size)[0], whole(split)[0])


def test_order_is_respected(split):
    images, labels = whole(split)
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(3))[:11]
    found, found_labels = whole(split, 4, order)
    assert torch.equal(found, images[order])
    assert torch.equal(found_labels, labels[order])


def test_a_subset_is_a_split_of_these_images(split):
    images, labels = whole(split)
    positions = torch.randperm(len(split), generator=torch.Generator().manual_seed(3))[:5]
    subset = split.subset(positions)
    found, found_labels = whole(subset, 2)
    assert torch.equal(found, images[positions])
    assert torch.equal(found_labels, labels[positions])
    assert torch.equal(subset.labels, labels[positions])
    again = subset.subset(torch.tensor([1, 0]))
    assert torch.equal(whole(again)[0], images[positions[[1, 0]]])
    assert len({split.sha256(), subset.sha256(), again.sha256()}) == 3
    assert split.subset(torch.arange(len(split))).sha256() == split.sha256()
    assert len(split.subset(positions[:0])) == 0


def test_last_batch_is_kept_or_dropped(split):
    order = torch.arange(11) % len(split)
    sizes = [[len(y) for _, y in split.batches(order, 4, device=CPU, drop_last=d)] for d in (0, 1)]
    assert sizes == [[4, 4, 3], [4, 4]]
    assert list(split.batches(order[:0], 4, device=CPU)) == []


def test_a_batch_is_the_callers_to_change(split):
    before = whole(split)
    for images, labels in split.batches(None, 5, device=CPU):
        images.zero_()
        labels.zero_()
    for again, first in zip(whole(split), before, strict=True):
        assert torch.equal(again, first)


def test_generator_decides_the_augmentation(split):
    def augmented(seed):
        generator = torch.Generator().manual_seed(seed)
        return whole(split, 8, augment=augmentation("crop-flip"), generator=generator)

    assert torch.equal(augmented(1)[0], augmented(1)[0])
    assert not torch.equal(augmented(1)[0], augmented(2)[0])
    assert torch.equal(augmented(1)[1], split.labels)


def test_global_random_state_is_left_alone(split):
    state = torch.get_rng_state()
    whole(split, 8, augment=augmentation("crop"), generator=torch.Generator())
    assert torch.equal(torch.get_rng_state(), state)


def test_digest_is_repeatable_and_tells_splits_apart(data):
    digests = [s.sha256() for s in (data.train, data.validation, data.test)]
    assert [s.sha256() for s in (data.train, data.validation, data.test)] == digests
    assert len(set(digests)) == 3
    assert all(len(bytes.fromhex(d)) == 32 for d in digests)


def test_validation_is_stratified(data):
    counts = [
        torch.bincount(split.labels, minlength=data.num_classes).double() / len(split)
        for split in (data.train, data.validation)
    ]
    assert torch.allclose(counts[0], counts[1], atol=0.15)


def random_pixels(n=20, channels=3, size=8, **options):
    noise = np.random.default_rng(1)
    return noise.integers(0, 256, (n, channels, size, size), np.uint8)


def split_of(images, labels=None, mean=(0.5,), std=(0.25,), **options):
    labels = np.arange(len(images)) % 5 if labels is None else labels
    return ArraySplit(Pixels(images, **options), labels, mean=mean, std=std)


def test_normalisation_is_the_arithmetic():
    images, mean, std = random_pixels() % 17, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    found, _ = whole(split_of(images, mean=mean, std=std, white=16))
    columns = [np.array(v)[:, None, None] for v in (mean, std)]
    expected = (images / 16 - columns[0]) / columns[1]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)


def test_padding_is_black():
    images = np.full((64, 1, 8, 8), 255, np.uint8)
    crops, _ = whole(split_of(images), augment=augmentation("crop"))
    assert set(crops.unique().tolist()) == {-2.0, 2.0}


def test_grey_images_become_rgb_by_repetition():
    images = random_pixels(channels=1)
    found, _ = whole(split_of(images, mean=(0.1, 0.2, 0.3), std=(1, 1, 1)))
    assert found.shape == (20, 3, 8, 8)
    assert torch.allclose(found[:, 0] - found[:, 1], torch.tensor(0.1), atol=1e-6)


def test_digest_is_that_of_the_bytes(tmp_path, monkeypatch):
    images = random_pixels()
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    frozen = images.copy()
    frozen.flags.writeable = False
    strided = images.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    digest = split_of(images).sha256()
    assert {split_of(a).sha256() for a in (mapped, frozen, strided)} == {digest}
    monkeypatch.setattr(arrays_module, "CHUNK_BYTES", 1)
    assert split_of(images).sha256() == digest
    expected = hashlib.sha256(b"(20, 3, 8, 8) 255" + images.tobytes())
    expected.update((np.arange(20) % 5).astype("<i8").tobytes())
    expected.update(np.array([[0.5], [0.25]], "<f8").tobytes())
    assert expected.hexdigest() == digest


def test_digest_notices_a_pixel_a_label_and_the_normalisation():
    images, labels = random_pixels(), np.arange(20) % 5
    pixel, label = images.copy(), labels.copy()
    pixel[7, 1, 2, 3] ^= 1
    label[7] ^= 1
    digests = {
        split_of(images).sha256(),
        split_of(pixel).sha256(),
        split_of(images, label).sha256(),
        split_of(images, mean=(0.5000001,)).sha256(),
        split_of(images, std=(0.2500001,)).sha256(),
        split_of(images, mean=(0.5,) * 3, std=(0.25,) * 3).sha256(),
        split_of(images, white=254).sha256(),
        split_of(images[::-1], labels[::-1].copy()).sha256(),
    }
    assert len(digests) == 8


def test_moments_are_exact(monkeypatch):
    images = random_pixels(n=30)
    rows = torch.tensor([3, 1, 4, 1, 5, 9])
    monkeypatch.setattr(arrays_module, "CHUNK_BYTES", 300)
    mean, std = Pixels(images, white=200).moments(rows)
    chosen = images[rows.numpy()].astype(np.float64) / 200
    np.testing.assert_allclose(mean, chosen.mean((0, 2, 3)), rtol=1e-14)
    np.testing.assert_allclose(std, chosen.std((0, 2, 3)), rtol=1e-13)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("limit", [0, 2 << 30])
def test_a_gpu_gets_the_same_batches(data, monkeypatch, limit):
    monkeypatch.setattr(arrays_module, "RESIDENT_BYTES", limit)
    order = torch.randperm(len(data.train))

    def batches(device):
        generator = torch.Generator().manual_seed(5)
        crops = augmentation("crop-flip")
        found = data.train.batches(order, 9, device=device, augment=crops, generator=generator)
        return list(found)

    for (x, y), (cpu_x, cpu_y) in zip(batches(torch.device("cuda")), batches(CPU), strict=True):
        assert x.is_cuda
        assert y.is_cuda
        torch.testing.assert_close(x.cpu(), cpu_x, rtol=0, atol=1e-6)
        assert torch.equal(y.cpu(), cpu_y)
