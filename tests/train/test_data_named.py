"""From a name and options to data: normalisation, sizes, channels, the fixed splits."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from qwd.errors import InputError, UsageError
from qwd.registry import DATASETS
from qwd.train.data import ImageSet, Part, load
from qwd.train.data.stratify import held_out

CPU = torch.device("cpu")


@pytest.fixture
def coloured(monkeypatch):
    """A registered data set of 3-channel images whose third channel is constant."""
    noise = np.random.default_rng(0)
    images = noise.integers(0, 256, (40, 3, 8, 8), np.uint8)
    images[:, 2] = 51
    part = Part(images, np.arange(40) % 4)
    raw = ImageSet(train=part, test=part, classes=("a", "b", "c", "d"))
    monkeypatch.setitem(DATASETS._entries, "coloured", lambda *, data_dir, download: raw)
    return raw


def test_digits_are_split_once_and_for_all():
    data = load("digits")
    assert (len(data.train), len(data.validation), len(data.test)) == (1257, 180, 360)
    assert (data.in_channels, data.image_size, data.num_classes) == (1, 8, 10)
    assert (data.test_name, data.default_augment) == ("test", "none")
    counts = torch.bincount(data.test.labels)
    assert 34 <= int(counts.min()) <= int(counts.max()) <= 38
    # Figures of different machines and releases are comparable: they are of these very images.
    assert data.test.sha256() == "5f328e5a0d75123511ed1a2c64a381429194b26446fdc6caf553b4f0170adbf6"
    parts = [
        np.concatenate([x.numpy() for x, _ in split.batches(None, 500, device=CPU)])
        for split in (data.train, data.validation, data.test)
    ]
    assert len(np.unique(np.concatenate(parts).reshape(1797, -1), axis=0)) == 1797


def test_what_is_held_out_does_not_depend_on_release_or_machine():
    _, taken = held_out(np.arange(100) % 3)
    assert taken.tolist() == [28, 42, 52, 53, 54, 66, 80, 84, 88, 89]


def test_default_normalisation_is_that_of_the_training_images():
    data = load("digits")
    images = torch.cat([x for x, _ in data.train.batches(None, 500, device=CPU)]).double()
    assert abs(images.mean().item()) < 1e-6
    assert abs(images.std(correction=0).item() - 1) < 1e-6
    (note,) = data.notes
    assert note == "normalisation: mean 0.3052, std 0.3762, computed from the training images"
    again = load("digits", mean=data.mean, std=data.std)
    assert again.train.sha256() == data.train.sha256()
    assert again.notes == ()


def test_given_normalisation_is_per_channel_or_for_all(coloured):
    data = load("coloured", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    data = load("coloured", mean=(0.5,), std=(0.25,))
    assert (data.mean, data.std) == ((0.5,) * 3, (0.25,) * 3)


def test_a_constant_channel_stays_finite(coloured):
    data = load("coloured")
    assert data.mean[2] == pytest.approx(0.2)
    assert data.std[2] == 1.0
    images, _ = next(data.test.batches(None, 40, device=CPU))
    assert images.isfinite().all()
    assert images[:, 2].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"mean": (0.1, 0.2), "std": (1.0,)}, "--mean 0.1, 0.2: has 2, expected 1 number, or 3"),
        ({"mean": (0.1,), "std": (1, 2, 3, 4)}, "--std 1, 2, 3, 4: has 4, expected"),
        ({"mean": (0.1,)}, "--std is missing"),
        ({"std": (0.1,)}, "--mean is missing"),
        ({"mean": (0.1,), "std": (0.0,)}, "--std 0, 0, 0: expected numbers greater than 0"),
        ({"channels": 1}, "has 3 channels, the model takes 1"),
    ],
)
def test_options_that_do_not_fit(coloured, options, line):
    with pytest.raises(UsageError) as caught:
        load("coloured", **options)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_name():
    with pytest.raises(UsageError, match="unknown data set 'digit': did you mean 'digits'"):
        load("digit")


def test_grey_becomes_rgb_where_a_model_needs_it():
    grey, data = load("digits"), load("digits", channels=3)
    assert data.in_channels == 3
    assert data.mean == grey.mean * 3
    images, _ = next(data.test.batches(None, 5, device=CPU))
    expected, _ = next(grey.test.batches(None, 5, device=CPU))
    assert torch.equal(images, expected.expand(-1, 3, -1, -1))


def test_image_size_resizes_and_rescales():
    data = load("digits", image_size=20, mean=(0.0,), std=(1.0,))
    assert data.image_size == 20
    images, _ = next(data.test.batches(None, 360, device=CPU))
    small, _ = next(load("digits", mean=(0.0,), std=(1.0,)).test.batches(None, 360, device=CPU))
    assert images.shape == (360, 1, 20, 20)
    expected = torch.nn.functional.interpolate(small, size=20, mode="bilinear", antialias=True)
    assert (images - expected).abs().max() < 2.5 / 255
    same = load("digits", image_size=8)
    assert same.test.sha256() == load("digits").test.sha256()


def test_images_that_are_not_square_need_a_size(monkeypatch):
    part = Part(np.arange(10 * 6 * 8, dtype=np.uint8).reshape(10, 1, 6, 8), np.arange(10) % 2)
    raw = ImageSet(train=part, test=part, classes=("a", "b"))
    monkeypatch.setitem(DATASETS._entries, "oblong", lambda **_: raw)
    with pytest.raises(UsageError, match=r"images are 8x6 .* for example --image-size 6"):
        load("oblong")
    data = load("oblong", image_size=6, mean=(0.0,), std=(1.0,))
    images, _ = next(data.test.batches(None, 10, device=CPU))
    # As large as needed already: only the sides are cut off.
    assert np.array_equal(np.rint(images.numpy() * 255), part.images[..., 1:-1])


@pytest.mark.parametrize(
    ("labels", "count", "expected"),
    [
        (np.repeat([0, 1], [90, 10]), None, [9, 1]),
        (np.repeat([0, 1, 2], [40, 40, 1]), None, [4, 4, 0]),
        (np.array([0, 0, 0, 0, 0, 5]), 2, [2, 0, 0, 0, 0, 0]),
    ],
)
def test_held_out_in_proportion(labels, count, expected):
    kept, taken = held_out(labels, count)
    assert np.bincount(labels[taken], minlength=len(expected)).tolist() == expected
    assert np.array_equal(np.sort(np.concatenate([kept, taken])), np.arange(len(labels)))
    assert (np.diff(taken) > 0).all()
    assert np.array_equal(held_out(labels, count)[1], taken)


@pytest.mark.parametrize("labels", [np.arange(30), np.repeat(np.arange(50), 2), np.zeros(2, int)])
def test_held_out_where_classes_are_too_small(labels):
    kept, taken = held_out(labels)
    assert len(taken) == max(1, len(labels) // 10)
    assert np.array_equal(np.sort(np.concatenate([kept, taken])), np.arange(len(labels)))


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_hold_out(n):
    with pytest.raises(InputError, match=f"{n} training images: expected at least 2"):
        held_out(np.zeros(n, int))


def test_importing_the_data_is_cheap_and_silent():
    code = (
        "import sys, qwd.train.data;"
        "sys.exit(bool({'sklearn', 'torchvision', 'scipy'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")
