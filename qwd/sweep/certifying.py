"""Certificates for the verdict of a sweep: int8 does not notice the common factor of the weights.

One for each decay, of the first seed that it shares with the reference: the cell of the reference
takes over the scale of the other cell's layers, and its int8 predictions are counted again. They
are kept in ``certificates.json`` with the digests of the weights, and not made twice.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qwd.errors import InputError, QwdError, UsageError, reason
from qwd.files import write_text
from qwd.report.figures import ModelReport
from qwd.report.load import parse, read_as
from qwd.report.verdict.arms import Line, Runs, lines
from qwd.report.verdict.figures import Certificate, Verdict
from qwd.sweep.design import Design
from qwd.sweep.layout import CERTIFICATES, cell_folder
from qwd.train.layout import WEIGHTS

SCHEME = "ao-static"
"""that of the int8 accuracy in the verdict"""
NO_NORM = "no layer stands directly before a BatchNorm"


def with_certificates(
    found: Verdict, models: Sequence[ModelReport], design: Design, folder: Path
) -> Verdict:
    """``found``, the verdict on ``models`` in ``folder``, with a certificate for each decay.

    Where there is none the verdict says why: no BatchNorm, int8 that was not reported, a network
    whose calls cannot be traced, or weights that cannot be read.
    """
    from qwd.report.verdict import certified

    for line, other, certificate, why_not in _each(models, design, folder):
        given = [] if certificate is None else [certificate]
        found = certified(found, line.name, other.name, given, why_not)
    return found


def prepare(models: Sequence[ModelReport], design: Design, folder: Path) -> None:
    """Make what `with_certificates` then finds in the folder: networks take their time."""
    with contextlib.suppress(UsageError):  # nothing to compare
        for _ in _each(models, design, folder):
            pass


def _each(
    models: Sequence[ModelReport], design: Design, folder: Path
) -> Iterator[tuple[Line, Runs, Certificate | None, str | None]]:
    made, _ = lines(models, design.reference_wd)
    store = _Store(folder)
    for line in made:
        for other, certificate, why_not in _of_line(line, store, design):
            yield line, other, certificate, why_not
    store.write()


def _of_line(
    line: Line, store: "_Store", design: Design
) -> Iterator[tuple[Runs, Certificate | None, str | None]]:
    makers: dict[int, _Maker] = {}
    for other in line.others:
        common = sorted(line.reference.by_seed.keys() & other.by_seed.keys())
        if not common:
            yield other, None, "no seed in common"
            continue
        seed = common[0]
        pair = line.reference.by_seed[seed], other.by_seed[seed]
        if any(SCHEME not in model.schemes for model in pair):
            yield other, None, f"{SCHEME} was not reported"
            continue
        if seed not in makers:
            makers[seed] = _Maker(store, design.reporting.calibration_n)
        try:
            yield other, *makers[seed].made(pair[0].name, pair[1].name, seed)
        except Exception as error:  # a foreign model may raise anything
            yield other, None, _why(error)


def _why(error: Exception) -> str:
    if isinstance(error, QwdError):
        return str(error)
    from qwd.graphs import UntraceableError
    from qwd.quantize.backend import NotQuantizableError

    expected = isinstance(error, UntraceableError | NotQuantizableError)
    return reason(error) if expected else f"{type(error).__name__}: {reason(error)}"


class _Maker:
    """Certificates against one cell; networks and data are loaded when they are needed."""

    def __init__(self, store: "_Store", calibration_n: int):
        self._store, self._n = store, calibration_n
        self._certifier: Any = None

    def made(self, reference: str, other: str, seed: int) -> tuple[Certificate | None, str | None]:
        """The certificate of two cells, or why there is none."""
        key = self._store.key(reference, other)
        if key not in self._store.known:
            self._store.known[key] = self._fresh(reference, other, seed)
        certificate = self._store.known[key]
        return certificate, None if certificate else NO_NORM

    def _fresh(self, reference: str, other: str, seed: int) -> Certificate | None:
        from qwd.quantize.folding import norm_pairs
        from qwd.report.verdict import Certifier

        if self._certifier is None:
            model, data = self._store.opened(reference)
            self._certifier = Certifier(model, data, calibration_n=self._n)
        if not norm_pairs(self._certifier.reference):
            return None
        return self._certifier.against(self._store.opened(other)[0], seed)


class _Store:
    """``certificates.json``, and the cells that certificates are of."""

    def __init__(self, folder: Path):
        from qwd.report.subject import Subjects

        self._folder, self._subjects = folder, Subjects({})
        self._digests: dict[str, str] = {}
        self.known: dict[str, Certificate | None] = self._read()
        self._before = dict(self.known)

    def key(self, reference: str, other: str) -> str:
        """What a certificate is kept under: both cells, and their weights."""
        return " ".join(f"{cell}:{self._digest(cell)}" for cell in (reference, other))

    def opened(self, cell: str) -> tuple[Any, Any]:
        """The trained network of a cell, and its data, which cells of one setting share."""
        subject = self._subjects.open(cell_folder(self._folder, cell))
        return subject.model, subject.data

    def write(self) -> None:
        """Keep what is known, where that has changed."""
        if self.known != self._before:
            content = {key: value and asdict(value) for key, value in self.known.items()}
            write_text(self._folder / CERTIFICATES, json.dumps(content, indent=2) + "\n")

    def _read(self) -> dict[str, Certificate | None]:
        try:
            content = parse((self._folder / CERTIFICATES).read_bytes())
            return {key: read_as(Certificate, value) for key, value in content.items()}
        except (OSError, InputError, KeyError, TypeError, ValueError, AttributeError):
            return {}  # they are made again

    def _digest(self, cell: str) -> str:
        if cell not in self._digests:
            path = cell_folder(self._folder, cell) / WEIGHTS
            self._digests[cell] = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
        return self._digests[cell]
