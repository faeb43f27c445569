"""One training run, from settings to a run folder: the readable loop."""

import functools
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qwd import decay
from qwd.config import TrainConfig
from qwd.errors import DivergedError, InputError, UsageError, reason
from qwd.files import sole_user
from qwd.quantize.folding import FoldPlan, fold_plan
from qwd.quantize.statistics import mean_range
from qwd.train import filing, layout, run, seeding
from qwd.train.awareness import Awareness, trainable
from qwd.train.data import Data
from qwd.train.data.augment import augmentation
from qwd.train.decaying import decaying_optimizer
from qwd.train.devices import device_called, enough_memory
from qwd.train.dosing import advice
from qwd.train.evaluation import loss_and_accuracy
from qwd.train.forward import Forward, memory_format, uncompiled
from qwd.train.planning import GivenDose, batch_geometry, course
from qwd.train.prepare import data_for
from qwd.train.progress import Plan, Watcher
from qwd.train.schedules import RateSchedule
from qwd.train.start import starting_network
from qwd.train.stopping import EarlyStopping
from qwd.train.watch import Watch

PENALTIES = {"l1": "l1", "none": "none"}
"""what a form adds to the loss, where that is not wd/2 |w|^2"""


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
        config = filing.settings_to_resume(folder, config)
        if layout.is_finished(folder):
            return run.read_run(folder)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists: continue it with --resume, or choose another --out")
    data = data_for(config)
    with seeding.reproducible(device, config.threads):
        session = Session(config, data, device)
        with sole_user(folder), enough_memory(config, device):
            _run_all(session, folder, resume, watcher)
    return run.read_run(folder)


def _run_all(session: "Session", folder: Path, resume: bool, watcher: Watcher) -> None:
    """From the start, or the stored state, to the trained weights in ``folder``."""
    if session.config.compile:
        watcher.compiles()
    session.compile()
    filing.begin(session, folder, resume)
    watcher.begins(session.plan(folder), len(session.history))
    while not session.ended:
        session.run_epoch(len(session.history), watcher)
        filing.store(session, folder)
        watcher.epoch_ended(session.history[-1])
    if len(session.history) < session.config.epochs:
        kept = session.config.early_stop is not None
        watcher.stopped(len(session.history), session.stopping.epoch, kept)
    filing.finish(session, folder)


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
        network, self.notes = starting_network(config, data)
        self.network = network.to(device)
        """in float, under the names of the model"""
        self.model = trainable(config, self.network, data)
        """what computes: the network itself, or its quantization-aware twin"""
        self.awareness = Awareness(config, self.model)
        format = memory_format(self.network, device, data.image_size)
        self.forward = Forward(self.model, format, config.amp)
        self.batch_size, self.steps_per_epoch = batch_geometry(config, len(data.train))
        self.optimizer = decaying_optimizer(config, self.network, self.steps_per_epoch)
        self.audit = decay.audit(self.network, self.optimizer)
        self.audit.check()
        self.schedule = RateSchedule(self.optimizer, config, self.steps_per_epoch)
        self.planned = course(self.config, len(data.train))
        self.given = GivenDose(self.planned, config.coefficient)
        self.stopping = EarlyStopping(config.early_stop)
        self.stops = False
        """whether training ends here, early"""
        kind_of_crop = data.default_augment if config.augment == "auto" else config.augment
        self.augment = augmentation(kind_of_crop)
        self.watch = Watch(self.network, self.optimizer, PENALTIES.get(config.form, "l2"))

    def plan(self, folder: Path) -> Plan:
        """What this session will do."""
        return Plan(
            config=self.config,
            folder=folder,
            device=self.device,
            parameters=sum(p.numel for p in self.audit.parameters),
            audit=self.audit,
            steps_per_epoch=self.steps_per_epoch,
            dose=self.planned.dose(self.config.coefficient),
            advice=advice(
                self.planned,
                self.config.coefficient,
                option="--wd" if self.config.qat_wd is None else "--qat-wd",
            ),
            notes=(*self.notes, *self.data.notes, *self._batch_note(), *self.audit.warnings),
        )

    def compile(self) -> list[str]:
        """Compile the step where that is asked for; the notes say why where it cannot be done."""
        why = self.forward.compile(*next(iter(self.batches(0)))) if self.config.compile else None
        notes = [uncompiled(why)] if why else []
        self.notes += notes
        return notes

    @functools.cached_property
    def fold_plan(self) -> FoldPlan:
        """Which layers have a BatchNorm folded in."""
        return fold_plan(self.network)

    @property
    def ended(self) -> bool:
        """Whether all epochs are done, or training stopped before."""
        return self.stops or len(self.history) >= self.config.epochs

    def _batch_note(self) -> list[str]:
        asked = self.config.batch_size
        fewer = f"--batch-size {asked}: the {self.batch_size} images there are make one batch"
        return [fewer] if self.batch_size < asked else []

    def run_epoch(self, epoch: int, watcher: Watcher) -> None:
        """Train for one epoch and append its row to the history."""
        started = time.perf_counter()
        batches = self.batches(epoch)
        self.model.train()
        self.awareness.epoch_begins(epoch)
        loss_sum = torch.zeros((), device=self.device)
        right = torch.zeros((), device=self.device)
        rate = self.schedule.rate
        for step, (images, labels) in enumerate(batches, start=1):
            loss, hits = self.step(images, labels, watched=step == self.steps_per_epoch)
            loss_sum += loss
            right += hits
            watcher.stepped(epoch + 1, step, self.steps_per_epoch)
        seen = self.steps_per_epoch * self.batch_size
        training = loss_sum.item() / self.steps_per_epoch, right.item() / seen
        with self.watch.validating(), self.awareness.resting():
            validation = loss_and_accuracy(self.model, self.data.validation, self.device)
        self.epoch_ended(rate, training, validation)
        self.history[-1]["seconds"] = time.perf_counter() - started

    def epoch_ended(
        self, rate: float, training: tuple[float, float], validation: tuple[float, float]
    ) -> None:
        """Append the row of an epoch whose first rate was ``rate``, and see what follows from it.

        ``training`` and ``validation`` are loss and accuracy; the seconds are left open. Raises
        DivergedError.
        """
        epoch, (train_loss, train_accuracy) = len(self.history), training
        validation_loss, validation_accuracy = validation
        if not math.isfinite(train_loss) or not math.isfinite(validation_loss):
            raise DivergedError(
                f"training diverged in epoch {epoch + 1}: the loss is not finite; "
                f"try a lower --lr than {self.config.lr:g}"
            )
        falls_to_its_end = self.schedule.epoch_ended(validation_loss)
        self.stops = self.stopping.saw(epoch + 1, validation_loss, self.model) or falls_to_its_end
        self.history.append(
            {
                "epoch": epoch + 1,
                "lr": rate,
                "dose": self.given.taken,
                "train_loss": train_loss,
                "train_accuracy": train_accuracy,
                "validation_loss": validation_loss,
                "validation_accuracy": validation_accuracy,
                "gap_pp": 100 * (train_accuracy - validation_accuracy),
                "best_epoch": self.stopping.epoch,
                "folded_range": self.folded_range(),
                **self.awareness.row(self.data),
                **self.watch.row(),
                "seconds": None,
            }
        )

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The augmented images and labels of one epoch, in whole batches; seeds everything."""
        order, generator = self.order(epoch)
        return self.data.train.batches(
            order,
            self.batch_size,
            device=self.device,
            augment=self.augment,
            generator=generator,
            drop_last=True,
        )

    def order(self, epoch: int) -> tuple[Tensor, torch.Generator]:
        """Seed everything for an epoch: int64 positions of the images, and what augments them."""
        generator = seeding.seed_everything(self.config.seed, epoch)
        return torch.randperm(len(self.data.train), generator=generator), generator

    def step(
        self, images: Tensor, labels: Tensor, *, watched: bool = False
    ) -> tuple[Tensor, Tensor]:
        """One update; returns the loss and the number of images classified rightly."""
        outputs, loss = self.forward(images, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if watched:
            self.watch.before_step()
        self.optimizer.step()
        if watched:
            self.watch.after_step()
        self.given.step(self.schedule.rate)
        self.schedule.step()
        return loss.detach(), (outputs.detach().argmax(dim=1) == labels).sum()

    def folded_range(self) -> float | None:
        """Mean weight range as deployed, weighted by elements."""
        return mean_range(self.fold_plan.weights(self.network).values())

    def state(self) -> dict[str, Any]:
        """What `restore` needs; random numbers follow from seed and epoch and are not in it."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "stopping": self.stopping.state_dict(),
            "stops": self.stops,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any], folder: Path) -> None:
        """Go back to a stored state; InputError where it is not this session's."""
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.stopping.load_state_dict(state["stopping"])
            self.stops = bool(state["stops"])
            self.history = list(state["history"])
            done, taken = len(self.history) * self.steps_per_epoch, self.history[-1]["dose"]
            self.given = GivenDose(self.planned, self.config.coefficient, steps=done, taken=taken)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{folder / layout.CHECKPOINT} does not fit this run: {reason(error)}"
            ) from error
