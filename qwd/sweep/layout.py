"""The files of a sweep folder and its place; free of torch.

``sweep.yaml`` (the grid and the settings of all cells), ``cells/<id>/`` (a run folder each, with
its own ``report.json``, or with ``diverged.json`` where the loss became infinite or NaN),
``report.json`` (all cells and their comparison), ``placebo.json`` (the arms without an effect),
``certificates.json`` (what int8 predicts with another scale of the weights).
Whoever computes a cell holds the lock in ``.claims/<id>``.
"""

import os
import re
from pathlib import Path

SWEEP, CELLS, CLAIMS = "sweep.yaml", "cells", ".claims"
REPORT, PLACEBO, CERTIFICATES = "report.json", "placebo.json", "certificates.json"
DIVERGED = "diverged.json"

SWEEPS = Path("sweeps")


def is_sweep(path: Path) -> bool:
    """Whether ``path`` is a sweep folder."""
    return os.path.isfile(path / SWEEP)


def cell_folder(sweep: Path, cell: str) -> Path:
    """The run folder of a cell."""
    return sweep / CELLS / cell


def claim_folder(sweep: Path, cell: str) -> Path:
    """What a process holds, see `qwd.files.sole_user`, while it computes a cell."""
    return sweep / CLAIMS / cell


def safe(name: str) -> str:
    """A name with nothing in it that a file name cannot have."""
    return re.sub(r"[^\w.-]+", "-", name)
