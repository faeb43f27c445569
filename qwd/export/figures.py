"""What was exported, and what was measured of it, as plain data."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from qwd.export.promise import Promise
from qwd.export.timing import Timed


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """On how many test images the file predicts the same class as another quantized network."""

    scheme: str
    n: int


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Times at one batch size; ratios are against the exported file."""

    batch_size: int | None
    """None: of reading the file"""
    timed: tuple[Timed, ...]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Float against the exported file, on this machine."""

    repetitions: int
    threads: int
    note: str
    """what a reader of the times has to know; may be empty"""
    latencies: tuple[Latency, ...]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written."""

    path: str
    format: str
    scheme: str
    model: str
    data: str
    split: str
    n: int
    """test images"""
    float_accuracy: float
    report: Promise
    accuracy: float
    """of the file, read back and run on the test split"""
    difference_pp: float
    """100 (accuracy - the report's)"""
    agree_n: int
    """test images whose class the file predicts as the network that the report measures does"""
    ao: Agreement | None
    """the same against the scheme on torch.ao's kernels; None where these do not run it"""
    bytes: int
    float_bytes: int
    """of the same network in float32 in the same format"""
    sha256: str
    """of the file"""
    metadata: dict[str, Any]
    warnings: tuple[str, ...]
    benchmark: Benchmark | None = None

    def to_json(self) -> str:
        """Every fact as one JSON object."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"
