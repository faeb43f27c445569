"""What an exported file is to the rest of `qwd.export`: bytes that can be opened and run again."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from qwd.quantize.backend import QuantizedNetwork
from qwd.quantize.schemes import Scheme

Runs = Mapping[str, Callable[[], object]]
"""what is timed against each other, by name; the exported file under `Program.timed`"""


class Program(ABC):
    """A quantized network on its way into a file of one format."""

    timed: str
    """what `Program.runs` calls the exported file"""
    note: str = ""
    """what a reader of the times has to know"""
    computes: bool = True
    """whether times are of batches of images, not of reading the file"""

    def __init__(self, made: QuantizedNetwork, network: nn.Module, scheme: Scheme, example: Tensor):
        """``made`` is ``network``, float and deployed, under ``scheme``; ``example`` a batch."""
        self.made = made
        self.network = network
        self.scheme = scheme
        self.example = example

    @abstractmethod
    def grids(self) -> dict[str, dict[str, Any]]:
        """By weight ``scale``, ``zero_point`` (minmax: ``a``) and ``axis``, as the file has them.

        Numbers, or lists with one per channel along ``axis``, which is None for numbers.
        """

    @abstractmethod
    def content(self, metadata: Mapping[str, str]) -> bytes:
        """The file, metadata included."""

    @abstractmethod
    def reopened(self, content: bytes) -> nn.Module:
        """The network that is read back from ``content``, and nothing else.

        Raises VerificationError where it cannot be, or is not what was written.
        """

    @abstractmethod
    def float_content(self) -> bytes:
        """The network in float32, in the same format."""

    @abstractmethod
    def runs(self, content: bytes, images: Tensor) -> Runs:
        """What to time: the file, and float, on a batch of images [N, C, H, W]."""
