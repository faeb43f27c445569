"""Crops are windows of the padded image and flips are mirror images, one by one."""

import numpy as np
import pytest
import torch

from qwd.errors import UsageError
from qwd.train.data import Augment, augmentation


def window(image, padding, top, left, mirrored):
    """The slow reference, on one image [C, H, W]."""
    height, width = image.shape[1:]
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    cut = padded[:, top : top + height, left : left + width]
    return cut[:, :, ::-1] if mirrored else cut


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_every_image_is_a_shifted_window(dtype, flip, size):
    images = torch.randint(1, 256, (32, 3, *size), dtype=torch.uint8).to(dtype)
    augment = Augment(padding=2, flip=flip)
    found = augment(images, torch.Generator().manual_seed(1)).numpy()
    assert found.shape == images.shape
    assert found.dtype == images.numpy().dtype
    seen = set()
    for image, got in zip(images.numpy(), found, strict=True):
        matches = [
            (top, left, mirrored)
            for top in range(5)
            for left in range(5)
            for mirrored in range(1 + flip)
            if np.array_equal(window(image, 2, top, left, mirrored), got)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(5))
    assert {mirrored for _, _, mirrored in seen} == set(range(1 + flip))


def test_a_seed_repeats_the_augmentation_and_leaves_the_images_alone():
    images = torch.randint(256, (16, 1, 8, 8), dtype=torch.uint8)
    before = images.clone()
    augment = augmentation("crop-flip")
    assert augment is not None
    first, second, third = (
        augment(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(images, before)


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    Augment(padding=4, flip=True)(torch.zeros(4, 1, 8, 8), torch.Generator())
    assert torch.equal(torch.get_rng_state(), state)


def test_names():
    assert augmentation("none") is None
    assert augmentation("crop") == Augment(padding=4, flip=False)
    assert augmentation("crop-flip") == Augment(padding=4, flip=True)
    with pytest.raises(UsageError, match=r"'crop-flop'.*did you mean 'crop-flip'"):
        augmentation("crop-flop")
