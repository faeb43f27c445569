"""Images of another size: Pillow's antialiased bilinear filter, the same on every machine."""

import numpy as np
from PIL import Image, ImageOps


def square(image: Image.Image, size: int) -> Image.Image:
    """The centre square of an image, as large as its shorter side, resized to ``size`` pixels."""
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def squares(images: np.ndarray, size: int) -> np.ndarray:
    """`square` of every image: uint8 [n, C, H, W] to uint8 [n, C, size, size]."""
    resized = np.empty((*images.shape[:2], size, size), np.uint8)
    for image, into in zip(images, resized, strict=True):
        for plane, target in zip(image, into, strict=True):
            target[:] = np.asarray(square(Image.fromarray(plane), size))
    return resized
