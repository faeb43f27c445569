"""One training run, from settings to a run folder: the readable loop."""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from qwd import decay
from qwd.config import MACHINE_SETTINGS, TrainConfig
from qwd.errors import DivergedError, InputError, UsageError, reason
from qwd.files import sole_user
from qwd.quantize.folding import fold_plan
from qwd.quantize.statistics import mean_range
from qwd.registry import FORMS, OPTIMIZERS
from qwd.setting import option_name
from qwd.train import layout, run, seeding
from qwd.train.data import Data
from qwd.train.data.augment import augmentation
from qwd.train.devices import device_called
from qwd.train.evaluation import loss_and_accuracy
from qwd.train.planning import batch_geometry, planned_dose
from qwd.train.prepare import data_for, model_for
from qwd.train.schedules import rate_factor


@dataclass(frozen=True)
class Plan:
    """What is about to be trained, known before the first step."""

    config: TrainConfig
    folder: Path
    device: torch.device
    parameters: int
    decayed: int
    """parameters under decay"""
    steps_per_epoch: int
    dose: float | None
    notes: tuple[str, ...]


class Watcher:
    """Hears of a run's progress; override what is of interest."""

    def begins(self, plan: Plan, epochs_done: int) -> None:
        """Before the first step; ``epochs_done`` is positive for a resumed run."""

    def stepped(self, epoch: int, step: int, steps: int) -> None:
        """After each step, both counted from 1."""

    def epoch_ended(self, row: dict[str, float | None]) -> None:
        """After each epoch, with its row of ``metrics.csv``."""


def train(
    config: TrainConfig,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> run.Run:
    """Train one model and write a run folder; the test split is not touched.

    ``out`` is the folder (default ``runs/<model>-<data>-wd<wd>-s<seed>``). A folder that exists is
    refused unless ``resume``, which goes on after the last finished epoch and gives bitwise the
    weights of an uninterrupted run on the same machine and thread count, as long as the user's own
    model and data draw their random numbers from the generators of torch, numpy and random.

    Raises UsageError, also where ``resume`` meets a run of other settings, InputError,
    StorageError, and DivergedError when the loss is not finite.
    """
    if not isinstance(config, TrainConfig):
        raise UsageError(f"config {type(config).__name__}: expected a qwd.TrainConfig")
    folder = Path(out) if out is not None else layout.default_folder(config)
    watcher = watcher or Watcher()
    device = device_called(config.device)
    if resume:
        if not layout.is_run(folder):
            raise UsageError(f"--resume: {folder} is no run folder; leave --resume out to start it")
        config = _same_run(run.read_config(folder), config, folder)
        if layout.is_finished(folder):
            return run.read_run(folder)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists: continue it with --resume, or choose another --out")
    data = data_for(config)
    with seeding.reproducible(device, config.threads), sole_user(folder):
        session = Session(config, data, device)
        state = run.read_checkpoint(folder) if resume else None
        if state is not None:
            session.restore(state, folder)
        else:
            run.write_start(folder, session.config, device)
        watcher.begins(session.plan(folder), len(session.history))
        try:
            for epoch in range(len(session.history), config.epochs):
                session.run_epoch(epoch, watcher)
                run.write_checkpoint(folder, session.state())
                run.write_metrics(folder, session.history)
                watcher.epoch_ended(session.history[-1])
        except torch.OutOfMemoryError as error:
            raise UsageError(
                f"--batch-size {config.batch_size}: out of memory on {device}; choose a smaller one"
            ) from error
        # Again, for a run that was killed between its last checkpoint and these.
        run.write_metrics(folder, session.history)
        run.write_model(folder, session.model)
    return run.read_run(folder)


def _same_run(stored: TrainConfig, asked: TrainConfig, folder: Path) -> TrainConfig:
    """The settings to resume with: the stored ones, on the machine that is asked for."""
    machine = {name: getattr(asked, name) for name in MACHINE_SETTINGS}
    for name, value in vars(asked).items():
        # Normalisation that is not asked for is the one computed when the run began.
        if name in MACHINE_SETTINGS or (name in ("mean", "std") and value is None):
            continue
        if value != getattr(stored, name):
            raise UsageError(
                f"{option_name(name)} {value!r}: the run in {folder} has "
                f"{getattr(stored, name)!r}; resume it with that, or choose another --out"
            )
    return replace(stored, **machine)


class Session:
    """The moving parts of a run: model, optimizer with its decay, schedule, history."""

    def __init__(self, config: TrainConfig, data: Data, device: torch.device):
        # What was computed from the images is part of what repeats the run.
        normalised = {"mean": data.mean, "std": data.std} if data.mean else {}
        self.config = replace(config, **normalised)
        self.data = data
        self.device = device
        self.history: list[dict[str, float | None]] = []
        seeding.seed_everything(config.seed, seeding.INITIALIZATION)
        self.model = model_for(config, data).to(device)
        self.optimizer = OPTIMIZERS.get(config.optimizer).build(
            decay.param_groups(
                self.model,
                config.wd,
                decay_bias=config.decay_bias,
                decay_norm=config.decay_norm,
                no_decay=config.no_decay,
            ),
            config.lr,
            config.momentum,
        )
        decay.attach(self.optimizer, FORMS.get(config.form))
        self.batch_size, self.steps_per_epoch = batch_geometry(config, len(data.train))
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, rate_factor(config, self.steps_per_epoch)
        )
        kind_of_crop = data.default_augment if config.augment == "auto" else config.augment
        self.augment = augmentation(kind_of_crop)
        self.fold_plan = fold_plan(self.model)

    def plan(self, folder: Path) -> Plan:
        """What this session will do."""
        groups = self.optimizer.param_groups
        return Plan(
            config=self.config,
            folder=folder,
            device=self.device,
            parameters=sum(p.numel() for g in groups for p in g["params"]),
            decayed=0
            if self.config.form == "none"
            else sum(p.numel() for g in groups if g["decay"] for p in g["params"]),
            steps_per_epoch=self.steps_per_epoch,
            dose=planned_dose(self.config, len(self.data.train)),
            notes=(*self.data.notes, *self._batch_note()),
        )

    def _batch_note(self) -> list[str]:
        asked = self.config.batch_size
        fewer = f"--batch-size {asked}: the {self.batch_size} images there are make one batch"
        return [fewer] if self.batch_size < asked else []

    def run_epoch(self, epoch: int, watcher: Watcher) -> None:
        """Train for one epoch and append its row to the history."""
        started = time.perf_counter()
        generator = seeding.seed_everything(self.config.seed, epoch)
        order = torch.randperm(len(self.data.train), generator=generator)
        batches = self.data.train.batches(
            order,
            self.batch_size,
            device=self.device,
            augment=self.augment,
            generator=generator,
            drop_last=True,
        )
        self.model.train()
        loss_sum = torch.zeros((), device=self.device)
        right = torch.zeros((), device=self.device)
        rate = self.optimizer.param_groups[0]["lr"]
        for step, (images, labels) in enumerate(batches, start=1):
            loss, hits = self.step(images, labels)
            loss_sum += loss
            right += hits
            watcher.stepped(epoch + 1, step, self.steps_per_epoch)
        seen = self.steps_per_epoch * self.batch_size
        train_loss, train_accuracy = loss_sum.item() / self.steps_per_epoch, right.item() / seen
        validation_loss, validation_accuracy = loss_and_accuracy(
            self.model, self.data.validation, self.device
        )
        if not math.isfinite(train_loss) or not math.isfinite(validation_loss):
            raise DivergedError(
                f"training diverged in epoch {epoch + 1}: the loss is not finite; "
                f"try a lower --lr than {self.config.lr:g}"
            )
        self.history.append(
            {
                "epoch": epoch + 1,
                "lr": rate,
                "train_loss": train_loss,
                "train_accuracy": train_accuracy,
                "validation_loss": validation_loss,
                "validation_accuracy": validation_accuracy,
                "gap_pp": 100 * (train_accuracy - validation_accuracy),
                **self.ranges(),
                "seconds": time.perf_counter() - started,
            }
        )

    def step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One update; returns the loss and the number of images classified rightly."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp):
            outputs = self.model(images)
            loss = F.cross_entropy(outputs, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return loss.detach(), (outputs.detach().argmax(dim=1) == labels).sum()

    def ranges(self) -> dict[str, float | None]:
        """Mean weight range, raw and as deployed, and raw range / std."""
        deployed = self.fold_plan.apply(self.model).module
        raw, ratio = mean_range(self.model)
        return {"range": raw, "folded_range": mean_range(deployed)[0], "range_over_std": ratio}

    def state(self) -> dict[str, Any]:
        """What `restore` needs; random numbers follow from seed and epoch and are not in it."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "history": self.history,
        }

    def restore(self, state: dict[str, Any], folder: Path) -> None:
        """Go back to a stored state; InputError where it is not this session's."""
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            self.history = list(state["history"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{folder / layout.CHECKPOINT} does not fit this run: {reason(error)}"
            ) from error
