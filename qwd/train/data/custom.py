"""The user's own data sets: ``package.module:callable``, or two objects handed over directly."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from qwd.errors import InputError, QwdError, UsageError
from qwd.train.data.augment import Augment
from qwd.train.data.images import channels_given
from qwd.train.data.items import Items, randomness
from qwd.train.data.splits import Data, Split, slices
from qwd.train.data.stratify import held_out
from qwd.train.user_code import cause, imported

DIGEST_BATCH = 256


class DatasetSplit(Split):
    """The items of a map-style data set at ``rows``, read anew each time they are asked for.

    ``labels`` and ``rows``: int64 [n]. ``channels``: grey images become RGB where it is 3. The
    data set's own random transforms follow the generator of `batches`, a fixed seed without one.
    """

    def __init__(self, items: Items, labels: Tensor, rows: Tensor, channels: int):
        self.items = items
        self.labels = labels
        self.rows = rows
        self.channels = channels
        self._digest: str | None = None

    def batches(
        self,
        order: Tensor | None,
        batch_size: int,
        *,
        device: torch.device,
        augment: Augment | None = None,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split.batches`; augmentation is of the normalised image, where zero is the mean.

        Raises InputError where an item does not have the label it had before.
        """
        order = torch.arange(len(self)) if order is None else order
        generator = generator or torch.Generator().manual_seed(0)
        for part in slices(len(order), batch_size, drop_last):
            seed = int(torch.randint(2**31, (), generator=generator))
            rows, expected = self.rows[order[part]], self.labels[order[part]]
            with randomness(seed):
                images, labels = self.items.read(rows)
            self._check(rows, labels.cpu(), expected)
            images = images.to(device).expand(-1, self.channels, -1, -1)
            if augment is not None:
                images = augment(images, generator)
            yield images.contiguous(), labels.to(device)

    def subset(self, positions: Tensor) -> "DatasetSplit":
        """See `Split.subset`."""
        rows, labels = self.rows[positions], self.labels[positions]
        return DatasetSplit(self.items, labels, rows, self.channels)

    def sha256(self) -> str:
        """See `Split.sha256`; over the normalised float32 images as the data set returns them."""
        if self._digest is None:
            digest = hashlib.sha256(f"{len(self)} {self.channels}".encode())
            for images, _ in self.batches(None, DIGEST_BATCH, device=torch.device("cpu")):
                digest.update(images.numpy().astype("<f4").data)
            digest.update(self.labels.numpy().astype("<i8").data)
            self._digest = digest.hexdigest()
        return self._digest

    def _check(self, rows: Tensor, labels: Tensor, expected: Tensor) -> None:
        wrong = (labels != expected).nonzero().flatten().tolist()
        if wrong:
            row, label, before = (int(values[wrong[0]]) for values in (rows, labels, expected))
            raise InputError(
                f"{self.items.what}: item {row} has label {label}, but {before} before or in "
                ".targets: expected an item to keep its label"
            )


def called(path: str) -> tuple[Any, Any]:
    """What the user's callable at ``package.module:callable`` returns: (train, test) data sets.

    See `qwd.train.user_code.imported`. Raises UsageError where the call fails, or something else is
    returned.
    """
    what = f"--data {path}"
    function = imported("--data", path)
    if not callable(function):
        kind = type(function).__name__
        raise UsageError(f"{what}: is {kind}: expected a function that returns (train, test)")
    try:
        with randomness(0):  # a split at random is the same split in every run and report
            pair = function()
    except QwdError:
        raise
    except Exception as error:
        raise UsageError(f"{what}: calling it failed: {cause(error)}") from error
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise UsageError(
            f"{what}: returned {type(pair).__name__}: expected two data sets, (train, test)"
        )
    return pair[0], pair[1]


def load_pair(train: Any, test: Any, name: str = "custom", *, channels: int | None = None) -> Data:
    """Data from two map-style data sets with items (x, y), which are normalised already.

    x: floating-point [C, H, H]; y: a class from 0. A stratified tenth of ``train`` is held out
    for validation. Raises UsageError for items of another kind, InputError where reading fails or
    a label of ``test`` is unknown to ``train``.
    """
    train, test = Items(train, f"--data {name}, train"), Items(test, f"--data {name}, test")
    if train.shape != test.shape:
        raise UsageError(
            f"{test.what}: x is {list(test.shape)}, in train {list(train.shape)}: expected one size"
        )
    in_channels = channels_given(name, train.shape[0], channels)
    labels, test_labels = train.labels(), test.labels()
    num_classes = int(labels.max()) + 1
    if test_labels.max() >= num_classes:
        raise InputError(
            f"{test.what}: label {int(test_labels.max())} at item {int(test_labels.argmax())}: "
            f"expected 0 to {num_classes - 1}, as in train"
        )
    kept, held = (torch.from_numpy(rows) for rows in held_out(labels.numpy()))
    return Data(
        name=name,
        train=DatasetSplit(train, labels[kept], kept, in_channels),
        validation=DatasetSplit(train, labels[held], held, in_channels),
        test=DatasetSplit(test, test_labels, torch.arange(len(test_labels)), in_channels),
        test_name="test",
        classes=_classes(train.dataset, num_classes),
        in_channels=in_channels,
        image_size=train.shape[1],
        mean=(),
        std=(),
        default_augment="none",
        notes=("validation images pass through the transforms of the training data set",),
    )


def _classes(dataset: Any, num_classes: int) -> tuple[str, ...]:
    names = getattr(dataset, "classes", ())
    if isinstance(names, list | tuple) and len(names) == num_classes:
        return tuple(str(name) for name in names)
    return tuple(str(label) for label in range(num_classes))
