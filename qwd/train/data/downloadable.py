"""MNIST, Fashion-MNIST and CIFAR in torchvision's file formats, fetched only when asked to."""

import contextlib
import errno
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from qwd.errors import InputError, StorageError, reason
from qwd.train.data.images import ImageSet, Part


def mnist(*, data_dir: str, download: bool = False) -> ImageSet:
    """MNIST: 70,000 grey handwritten digits of 28x28 pixels, ten classes."""
    return _found("mnist", "MNIST", data_dir, download)


def fashion_mnist(*, data_dir: str, download: bool = False) -> ImageSet:
    """Fashion-MNIST: 70,000 grey photographs of clothes, 28x28 pixels, ten classes."""
    return _found("fashion-mnist", "FashionMNIST", data_dir, download)


def cifar10(*, data_dir: str, download: bool = False) -> ImageSet:
    """CIFAR-10: 60,000 colour photographs of 32x32 pixels, ten classes."""
    return _found("cifar10", "CIFAR10", data_dir, download, "crop-flip")


def cifar100(*, data_dir: str, download: bool = False) -> ImageSet:
    """CIFAR-100: 60,000 colour photographs of 32x32 pixels, a hundred classes."""
    return _found("cifar100", "CIFAR100", data_dir, download, "crop-flip")


def _found(
    name: str, class_name: str, data_dir: str, download: bool, default_augment: str = "none"
) -> ImageSet:
    """The data set that torchvision's class of that name reads.

    Raises InputError where it is not in ``data_dir`` or damaged, or cannot be downloaded;
    StorageError where it cannot be stored.
    """
    from qwd.train.vision import datasets  # slow to import

    kind = getattr(datasets, class_name)
    folder = Path(data_dir).expanduser()
    try:
        return _read(kind, folder, default_augment)
    except Exception as error:
        # torchvision says in as many ways that files are absent, cut short or altered.
        if not download:
            raise InputError(
                f"--data {name}: no complete copy in {folder}: --download fetches it there, "
                "or --data-dir names the folder that holds it"
            ) from error
    _fetch(name, kind, folder)
    return _read(kind, folder, default_augment)


def _read(kind: Any, folder: Path, default_augment: str) -> ImageSet:
    with warnings.catch_warnings():
        # CIFAR's files were pickled by a numpy whose form today's deprecates.
        warnings.simplefilter("ignore")
        train, test = kind(folder, train=True), kind(folder, train=False)
    return ImageSet(
        train=_part(train),
        test=_part(test),
        classes=tuple(train.classes),
        default_augment=default_augment,
    )


def _part(found: Any) -> Part:
    images = np.asarray(found.data)
    # MNIST is [n, H, W], CIFAR [n, H, W, C].
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return Part(np.ascontiguousarray(images), np.asarray(found.targets, np.int64))


def _fetch(name: str, kind: Any, folder: Path) -> None:
    """Download beside the destination, then move each complete file into its place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
            _download(name, kind, temporary)
            for file in Path(temporary).rglob("*"):
                if file.is_file() and file.suffix != ".gz":
                    target = folder / file.relative_to(temporary)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(file, target)
    except OSError as error:
        raise StorageError(
            f"--data {name}: cannot store in {folder}: {error.strerror or error}"
        ) from error


def _download(name: str, kind: Any, folder: str) -> None:
    try:
        # Results alone go to stdout; torchvision checks what it fetched by its checksums.
        with contextlib.redirect_stdout(sys.stderr):
            kind(folder, download=True)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"--data {name}: the download failed ({reason(error)}): expected a network, or "
            "the files in the folder that --data-dir names"
        ) from error
