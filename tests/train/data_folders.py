"""Folders of tiny images, read through a cache of their own."""

import numpy as np
import pytest
import torch
from PIL import Image

from qwd.train.data import load

CPU = torch.device("cpu")
PLAIN = {"mean": (0.0,), "std": (1.0,)}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("QWD_CACHE_DIR", str(folder))
    return folder


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
