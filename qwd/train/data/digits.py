"""scikit-learn's digits: inside the package, so that the first run needs nothing else."""

import numpy as np

from qwd.train.data.images import ImageSet, Part
from qwd.train.data.stratify import held_out

TEST, VALIDATION = 360, 180


def digits(*, data_dir: str = "", download: bool = False) -> ImageSet:
    """Embedded handwritten digits: 1,797 grey images of 8x8 pixels, ten classes (0 to 16).

    Split once and for all into 1,257 for training, 180 for validation and 360 for the test.
    Source: UCI Optical Recognition of Handwritten Digits, through sklearn.datasets.load_digits.
    """
    from sklearn.datasets import load_digits  # slow to import

    rows, labels = load_digits(return_X_y=True)
    images, labels = rows.reshape(-1, 1, 8, 8).astype(np.uint8), labels.astype(np.int64)
    rest, test = held_out(labels, TEST)
    train, validation = (rest[rows] for rows in held_out(labels[rest], VALIDATION))

    def part(rows: np.ndarray) -> Part:
        return Part(images[rows], labels[rows])

    return ImageSet(
        train=part(train),
        validation=part(validation),
        test=part(test),
        classes=tuple(str(digit) for digit in range(10)),
        white=16,
    )
