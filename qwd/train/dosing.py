"""The dose table: what weight decays will do in a training, before it is run."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch.nn import functional as F

from qwd import decay
from qwd.config import TrainConfig
from qwd.setting import short
from qwd.train import seeding
from qwd.train.decaying import param_groups
from qwd.train.planning import Course, course
from qwd.train.prepare import data_for, model_for

TARGET = 0.5
"""a dose that shows: a weight without gradient loses 39 %"""
SHARE = 0.1
"""of the data loss that the penalty makes up at the start, by a common rule of thumb"""
TRIAL_IMAGES = 256


@dataclass(frozen=True, kw_only=True)
class DoseRow:
    """One weight decay."""

    wd: float
    dose: float | None
    """D; None where the form has none. With --lr-corrected that of the corrected weights"""
    shrinkage: float | None
    """1 - exp(-D), what a weight without gradient loses"""
    tau_steps: float | None
    """1 / (mean D per step), the steps that the weights remember"""
    tau_epochs: float | None
    decades: float | None
    """log10(lr / wd); practice: two to three"""
    penalty_share: float | None
    """penalty / data loss at the start; None without a model"""
    unfelt: float
    """share of the steps too small to change a float32 weight"""
    unfelt_bfloat16: float
    other_dose: float | None
    """D of the weights that --lr-corrected leaves out; None without it"""


@dataclass(frozen=True, kw_only=True)
class DoseTable:
    """Weight decays in one training, and which would do what is asked for."""

    form: str
    optimizer: str
    lr: float
    steps: int
    epochs: int
    is_bound: bool
    """doses are the most that the form can take"""
    rows: tuple[DoseRow, ...]
    target: float
    wd_for_target: float | None
    suggestion: float | None
    """the decay whose penalty is a tenth of the data loss at the start: a rule of thumb"""
    conversions: dict[str, tuple[float | None, ...]]
    """by convention, the coefficient of the same dose for each row"""

    @property
    def too_small(self) -> bool:
        """Whether no decay that is asked for can show."""
        doses = [row.dose for row in self.rows if row.wd > 0]
        return bool(doses) and all(d is not None and d < decay.VISIBLE for d in doses)

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps({**asdict(self), "too_small": self.too_small}, indent=2) + "\n"

    def to_csv(self) -> str:
        """A line per decay."""
        table = io.StringIO()
        rows = [asdict(row) for row in self.rows]
        writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return table.getvalue()


def dose_table(
    config: TrainConfig,
    wds: Sequence[float],
    *,
    images: int | None = None,
    target: float = TARGET,
    lr: float | None = None,
    momentum: float | None = None,
) -> DoseTable:
    """What each of ``wds`` would do in the training of ``config``, which is not run.

    Without ``images``, their number, the data set is read, and the model's penalty is compared
    with the loss of one batch at the start. Conversions are for a training of as many steps with
    the peak rate ``lr`` and, for what SGD amplifies, ``momentum``, by default the same.
    """
    start = None
    if images is None:
        data = data_for(config)
        images = len(data.train)
        start = _start(config, data)
    planned = course(config, images)
    rows = tuple(_row(config, planned, wd, start) for wd in wds)
    factor = lr / planned.peak if lr else 1.0
    rates = [rate * factor for rate in planned.rates]
    gain = planned.gain if momentum is None else 1 / (1 - momentum)
    return DoseTable(
        form=planned.form.name,
        optimizer=config.optimizer,
        lr=planned.peak,
        steps=len(planned.rates),
        epochs=config.epochs,
        is_bound=planned.is_bound,
        rows=rows,
        target=target,
        wd_for_target=planned.wd_for(target),
        suggestion=SHARE / start if start else None,
        conversions={
            name: tuple(
                None if dose is None else decay.convert(dose, name, rates, gain=gain)
                for dose in (row.dose for row in rows)
            )
            for name in decay.CONVENTIONS
        },
    )


def advice(planned: Course, wd: float, target: float = TARGET, option: str = "--wd") -> str | None:
    """What to do about a decay, given by ``option``, that is too small to show; None otherwise."""
    amount = planned.dose(wd)
    if amount is None or not 0 < amount < decay.VISIBLE:
        return None
    enough = planned.wd_for(target)
    return (
        f"below {decay.VISIBLE:g}, too small to show; for a dose of {target:g} use {option} "
        + ("" if enough is None else short(float(f"{enough:.3g}")))
        + (" or more" if planned.is_bound else "")
    )


def _row(config: TrainConfig, planned: Course, wd: float, start: float | None) -> DoseRow:
    amount = planned.dose(wd)
    tau = len(planned.rates) / amount if amount else None
    return DoseRow(
        wd=wd,
        dose=amount,
        other_dose=planned.other_dose(wd),
        shrinkage=None if amount is None else -math.expm1(-amount),
        tau_steps=tau,
        tau_epochs=None if tau is None else tau / planned.steps_per_epoch,
        decades=math.log10(planned.peak / wd) if wd else None,
        penalty_share=None if start is None else wd * start,
        unfelt=planned.unfelt(wd),
        unfelt_bfloat16=planned.unfelt(wd, torch.bfloat16),
    )


def _start(config: TrainConfig, data: Any) -> float | None:
    """Penalty of a coefficient of one over the data loss, before the first step."""
    cpu = torch.device("cpu")
    with seeding.reproducible(cpu, config.threads), torch.no_grad():
        seeding.seed_everything(config.seed, seeding.INITIALIZATION)
        model = model_for(config, data).train()
        order = torch.arange(min(TRIAL_IMAGES, len(data.train)))
        images, labels = next(iter(data.train.batches(order, TRIAL_IMAGES, device=cpu)))
        groups = param_groups(replace(config, wd=1.0), model)
        penalty = sum(
            group["decay"] * (p.abs().sum() if config.form == "l1" else p.square().sum() / 2)
            for group in groups
            for _, p in group["params"]
        )
        loss = F.cross_entropy(model(images), labels)
    return float(penalty / loss) if float(loss) > 0 else None
