"""Reading map-style data sets that others wrote, with every mistake explained."""

import contextlib
import operator
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from qwd.errors import InputError, QwdError, UsageError
from qwd.train.user_code import cause


class Items:
    """The items (x, y) of a data set: x floating point [C, H, H], normalised; y a whole number.

    ``what`` names the data set in error lines. Raises UsageError where the first item, or the
    length, is not as expected; InputError where reading it fails.
    """

    def __init__(self, dataset: Any, what: str):
        self.dataset = dataset
        self.what = what
        # Batches come by one indexing; its items have one shape and dtype.
        self._indexed = type(dataset) is TensorDataset
        self.shape = torch.Size()  # item 0 may have any
        try:
            self.n = len(dataset)
            dataset.__getitem__  # noqa: B018 - iterable data sets have none
        except Exception as error:
            kind = type(dataset).__name__
            raise UsageError(
                f"{what} is {kind}: expected a map-style data set, with a length and items (x, y)"
            ) from error
        if self.n == 0:
            raise InputError(f"{what} is empty: expected at least one item (x, y)")
        with randomness(0):
            self.shape = self._item(0)[0].shape

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The items at ``rows`` (int64 [n]): float32 [n, C, H, H] and int64 [n].

        Raises UsageError for items of another kind or shape, InputError where reading fails.
        """
        if self._indexed:
            images, labels = self.dataset[rows]
            return images.detach().to(torch.float32), labels.to(torch.int64).flatten()
        pairs = [self._item(row) for row in rows.tolist()]
        images = torch.stack([x for x, _ in pairs])
        return images.to(torch.float32), torch.tensor([y for _, y in pairs], dtype=torch.int64)

    def labels(self) -> Tensor:
        """Every label, int64 [n]: the data set's ``targets`` if it has them, else by reading it.

        Raises InputError for a negative one.
        """
        labels = self._targets()
        if labels is None and self._indexed:
            labels = self.dataset.tensors[1].to("cpu", torch.int64).flatten()
        if labels is None:
            with randomness(0):
                labels = torch.tensor([self._item(row)[1] for row in range(self.n)])
        if labels.min() < 0:
            raise InputError(
                f"{self.what}: label {int(labels.min())} at item {int(labels.argmin())}: "
                "expected whole numbers from 0"
            )
        return labels

    def _targets(self) -> Tensor | None:
        try:
            targets = np.asarray(self.dataset.targets)
        except Exception:
            return None
        usable = targets.shape == (self.n,) and np.issubdtype(targets.dtype, np.integer)
        return torch.from_numpy(targets.astype(np.int64)) if usable else None

    def _item(self, row: int) -> tuple[Tensor, int]:
        try:
            item = self.dataset[row]
        except QwdError:
            raise
        except Exception as error:
            raise InputError(f"{self.what}: reading item {row} failed: {cause(error)}") from error
        where = f"{self.what}: item {row}"
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise UsageError(f"{where} is {type(item).__name__}: expected a pair (x, y)")
        return self._image(item[0], where), self._label(item[1], where)

    def _image(self, x: Any, where: str) -> Tensor:
        if isinstance(x, np.ndarray) and np.issubdtype(x.dtype, np.floating):
            # A copy, because torch warns of arrays that it must not write to.
            x = torch.from_numpy(x.astype(np.float32))
        tensor = x.detach() if isinstance(x, Tensor) and x.is_floating_point() else None
        square = tensor is not None and tensor.ndim == 3 and tensor.shape[1] == tensor.shape[2]
        if tensor is None or not square or not tensor.numel():
            raise UsageError(
                f"{where}: x is {_described(x)}: "
                "expected a normalised floating-point tensor [C, H, W] with H = W"
            )
        if self.shape and tensor.shape != self.shape:
            raise UsageError(
                f"{where}: x is {_described(x)}: expected {list(self.shape)}, as item 0 is"
            )
        return tensor

    def _label(self, y: Any, where: str) -> int:
        try:
            # Whole numbers of Python, numpy and torch have an __index__; fractions have none.
            return operator.index(y.squeeze() if isinstance(y, np.ndarray) else y)
        except (TypeError, ValueError, RuntimeError):
            shown = " ".join(repr(y).split())[:60]
            raise UsageError(f"{where}: y is {shown}: expected a whole number, the class") from None


@contextlib.contextmanager
def randomness(seed: int) -> Iterator[None]:
    """The CPU generators that a user's transforms draw from, seeded inside, restored after."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        # torch.manual_seed would seed the GPU's generator too, which belongs to the training.
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        yield
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])  # noqa: NPY002


def _described(x: Any) -> str:
    if isinstance(x, Tensor | np.ndarray):
        return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
    return type(x).__name__
