"""The trainings of a design: their names and their settings."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwd.config import TrainConfig
from qwd.errors import QwdError, UsageError
from qwd.sweep.axes import part_of_id
from qwd.sweep.design import OTHER_SEEDS, Design, Role
from qwd.sweep.layout import cell_folder, is_sweep
from qwd.sweep.reading import read_design

MOST = 100_000
"""cells of a sweep"""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training."""

    id: str
    values: Mapping[str, Any]
    """of the settings that vary"""
    config: TrainConfig
    role: Role | None = None
    """None for a cell of the grid; else the arm without an effect that it belongs to"""

    @property
    def seed(self) -> int:
        """Of initialization, data order and augmentation."""
        return self.config.seed


def cells_of(design: Design) -> tuple[Cell, ...]:
    """All cells, seed after seed: what is trained first can be compared first.

    Every decay of a seed has the same initialization, data order and augmentation, which follow
    from the seed alone. Raises UsageError, naming the cell, where settings contradict each other.
    """
    n = len(design.seeds) * math.prod(map(len, design.axes.values()))
    if n > MOST:
        raise UsageError(f"{n:,} cells: expected at most {MOST:,}")
    start = _Start(design)
    cells = []
    for seed in design.seeds:
        cells += [_cell(design, start, values, seed) for values in combinations(design)]
        for arm in design.arms:
            shift = OTHER_SEEDS if arm.role == "other" else 0
            cells.append(_cell(design, start, arm.values, seed + shift, arm.role))
    seen: dict[str, Cell] = {}
    for cell in cells:
        other = seen.setdefault(cell.id, cell)
        if other is not cell:
            raise UsageError(f"two cells would be called {cell.id}: {other.values}, {cell.values}")
    return tuple(cells)


def combinations(design: Design) -> Iterator[dict[str, Any]]:
    """The values of the settings that vary, the last of them fastest."""
    for values in itertools.product(*design.axes.values()):
        yield dict(zip(design.axes, values, strict=True))


def cell_id(design: Design, values: Mapping[str, Any], seed: int, role: Role | None = None) -> str:
    """The name of a cell: what varies, and the seed, as ``adamw-wd1e-4-s3``."""
    named = [n for n in design.axes if n not in design.unnamed or values[n] != design.unnamed[n]]
    parts = [part_of_id(name, values[name]) for name in named]
    return "-".join([*([role] if role else []), *parts, f"s{seed}"])


def _cell(
    design: Design, start: "_Start", values: Mapping[str, Any], seed: int, role: Role | None = None
) -> Cell:
    name = cell_id(design, values, seed, role)
    # A cell computes on one thread unless asked otherwise: its weights depend on the number.
    given = {"threads": 1, **design.settings, **values, "seed": seed}
    try:
        return Cell(id=name, values=values, config=start.config(given), role=role)
    except QwdError as error:
        raise type(error)(f"cell {name}: {error}") from error


class _Start:
    """What cells start from: nothing, one run, or the cells of another sweep."""

    def __init__(self, design: Design):
        source = design.settings.get("from_")
        self.folder = Path(source) if source else None
        sweep = self.folder is not None and is_sweep(self.folder)
        self.base = read_design(self.folder) if self.folder and sweep else None

    def config(self, given: dict[str, Any]) -> TrainConfig:
        """The settings of a cell; those not given are the run's that it starts from."""
        if self.folder is None:
            return TrainConfig(**given)
        from qwd.train.start import continued

        if self.base is not None:
            # What varies there is the run's own already.
            values = {name: given.pop(name) for name in self.base.axes}
            cell = cell_id(self.base, values, given["seed"])
            given["from_"] = str(cell_folder(self.folder, cell))
        return continued(given)
