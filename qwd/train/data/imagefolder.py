"""Folders of images, a folder per class, by the rules of torchvision.datasets.ImageFolder."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from qwd.errors import InputError, UsageError
from qwd.train.data import cache
from qwd.train.data.images import ImageSet, Part
from qwd.train.data.resize import square
from qwd.train.vision import datasets

FORMAT = 1
"""Raised where the same files would be decoded to other bytes than before."""
CHUNK = 64
"""Images decoded at a time: enough for all threads, little memory even for large images."""


@dataclass(frozen=True, eq=False)
class Listing:
    """The image files of one part in torchvision's order, and their labels int64 [n]."""

    folder: Path
    classes: tuple[str, ...]
    files: list[str]
    labels: np.ndarray


def image_folder(directory: str, image_size: int | None) -> ImageSet:
    """RGB images of ``DIR/train`` and of ``DIR/test`` or ``DIR/val``.

    With both, ``val`` is the validation split. Images of other sizes are resized to
    ``image_size`` at the shorter side and cut to the centre. Raises InputError where a folder, an
    image or a class is missing, or an image cannot be read; UsageError where sizes differ and
    ``image_size`` is None.
    """
    root = Path(directory).expanduser()
    if not directory or not root.is_dir():
        raise InputError(f"--data imagefolder:{directory}: no such folder")
    listings = {p: _listed(root / p) for p in ("train", "val", "test") if (root / p).is_dir()}
    if "train" not in listings or len(listings) < 2:
        there = ", ".join(f"{p}/" for p in listings) or "none of them"
        raise InputError(f"{root}: expected train/ and test/ or val/ inside, found {there}")
    notes: list[str] = []
    parts: dict[str, Part] = {}
    for name, listing in listings.items():
        _check_classes(listings["train"], listing)
        images, problem = _images(listing, image_size)
        parts[name] = Part(images, listing.labels)
        if problem:
            notes.append(f"decoded images of {listing.folder} are not kept: {problem}")
        size, first = images.shape[2], parts["train"].images.shape[2]
        if size != first:
            raise UsageError(
                f"{root}: images are {first}x{first} in train/ and {size}x{size} in {name}/: "
                "choose one size with --image-size"
            )
    test_name = "test" if "test" in parts else "val"
    return ImageSet(
        train=parts["train"],
        validation=parts["val"] if test_name == "test" and "val" in parts else None,
        test=parts[test_name],
        test_name=test_name,
        classes=listings["train"].classes,
        default_augment="crop-flip",
        notes=tuple(notes),
    )


def _listed(folder: Path) -> Listing:
    try:
        found = datasets.ImageFolder(str(folder))
    except OSError as error:
        # No class folder, a class without images, or a folder that cannot be listed.
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: expected a folder of images per class: {reason}") from error
    files = [os.path.relpath(path, folder) for path, _ in found.samples]
    return Listing(folder, tuple(found.classes), files, np.array(found.targets, np.int64))


def _check_classes(train: Listing, other: Listing) -> None:
    if train.classes != other.classes:
        lacking = sorted(set(train.classes) - set(other.classes))
        surplus = sorted(set(other.classes) - set(train.classes))
        words = [f"lacks {', '.join(lacking[:5])}"] if lacking else []
        words += [f"has {', '.join(surplus[:5])} besides"] if surplus else []
        raise InputError(
            f"{other.folder}: expected the {len(train.classes)} classes of {train.folder}, "
            f"but it {' and '.join(words)}"
        )


def _images(listing: Listing, size: int | None) -> tuple[np.ndarray, Exception | None]:
    path = cache.folder() / f"{_key(listing, size)}.npy"
    return cache.kept(path, len(listing.files), size, lambda: _decoded(listing, size))


def _key(listing: Listing, size: int | None) -> str:
    """What the decoded bytes depend on, short of reading every file."""
    digest = hashlib.sha256(f"{FORMAT} {size} ".encode() + os.fsencode(listing.folder.resolve()))
    for name in listing.files:
        try:
            status = os.stat(listing.folder / name)
        except OSError as error:
            raise InputError(f"cannot read {listing.folder / name}: {error.strerror}") from error
        digest.update(os.fsencode(name) + f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _decoded(listing: Listing, size: int | None) -> Iterator[np.ndarray]:
    """The images in order, uint8 [k, 3, S, S] at a time."""
    paths = [listing.folder / name for name in listing.files]
    first = None
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), CHUNK):
            some = paths[start : start + CHUNK]
            # Filters are the process's, not the thread's: set them around the threads' work.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                images = list(pool.map(lambda path: _read(path, size), some))
            first = images[0] if first is None else first
            for path, image in zip(some, images, strict=True):
                _check_size(paths[0], first, path, image)
            yield np.stack(images).transpose(0, 3, 1, 2)


def _read(path: Path, size: int | None) -> np.ndarray:
    """One image: uint8 [H, W, 3]."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except Exception as error:
        # Decoders of damaged files raise anything, from OSError to SyntaxError.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read image {path}: {reason[:200]}") from error
    return np.asarray(image if size is None else square(image, size))


def _check_size(first_path: Path, first: np.ndarray, path: Path, image: np.ndarray) -> None:
    (height, width, _), (other_height, other_width, _) = first.shape, image.shape
    if first.shape != image.shape:
        raise UsageError(
            f"images differ in size: {first_path} is {width}x{height}, {path} is "
            f"{other_width}x{other_height}: choose one size with --image-size"
        )
    if height != width:
        raise UsageError(
            f"{first_path} is {width}x{height} and models take squares: "
            f"choose one size, for example --image-size {min(height, width)}"
        )
