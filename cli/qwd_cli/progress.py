"""How a training run looks in a terminal: one line an epoch, a bar for the steps."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qwd.setting import short
from qwd.train.awareness import qat_scheme
from qwd.train.planning import course_of
from qwd.train.progress import Plan, Watcher

COLUMNS = (
    ("epoch", "epoch", "d", 5),
    ("loss", "train_loss", ".4f", 8),
    ("penalty", "penalty", ".1e", 8),
    ("train", "train_accuracy", ".2%", 7),
    ("val", "validation_accuracy", ".2%", 7),
    ("int8", "int8_validation_accuracy", ".2%", 7),
    ("gap, pp", "gap_pp", "+.2f", 7),
    ("|w|", "weight_norm", ".2f", 6),
    ("step/|w|", "update_ratio", ".1e", 8),
    ("|g|", "gradient_norm", ".1e", 7),
    ("range", "range", ".4f", 7),
    ("folded", "folded_range", ".4f", 7),
    ("range/std", "range_over_std", ".2f", 9),
    ("dead", "dead_channels", ".1%", 5),
    ("s", "seconds", ".1f", 5),
)
"""header, column of metrics.csv, format, width; ``step/|w|`` is healthy near 1e-3"""
QAT_ALONE = "int8_validation_accuracy"


class TrainingProgress(Watcher):
    """Writes progress to stderr; the bar within an epoch shows on terminals alone."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", epoch=1)
        self.columns = COLUMNS

    def __enter__(self) -> "TrainingProgress":
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def compiles(self) -> None:
        self.console.print("compiling the step: half a minute or more")

    def begins(self, plan: Plan, epochs_done: int) -> None:
        config, audit = plan.config, plan.audit
        self.columns = [c for c in COLUMNS if c[1] != QAT_ALONE or config.qat]
        decay = f"{audit.decayed:,} under {config.form} decay {short(config.coefficient)}"
        start = f" from {config.from_}" if config.from_ else ""
        qat = f", {qat_scheme(config).name}" if config.qat else ""
        self.console.print(
            f"{config.model} on {config.data}{start}{qat}, {plan.parameters:,} parameters, "
            f"{decay if audit.decayed else 'none decayed'}, {config.optimizer}, "
            f"{config.epochs} epochs of {plan.steps_per_epoch} steps, {plan.device}"
        )
        for note in plan.notes:
            self.console.print(note)
        if plan.dose is not None and audit.decayed:
            faint = f": {plan.advice}" if plan.advice else ""
            planned = course_of(config, plan.steps_per_epoch)
            most, other = "at most " * planned.is_bound, planned.other_dose(config.coefficient)
            others = "" if other is None else f" where lr-corrected, {most}{other:.3g} elsewhere"
            self.console.print(
                f"dose {most}{plan.dose:.3g}{others} (what decay takes from an idle weight){faint}"
            )
        if epochs_done:
            self.console.print(f"resumed after epoch {epochs_done}")
        self.console.print(" ".join(f"{name:>{width}}" for name, _, _, width in self.columns))

    def stepped(self, epoch: int, step: int, steps: int) -> None:
        self.bar.update(self.task, completed=step, total=steps, epoch=epoch)

    def epoch_ended(self, row: dict[str, float | None]) -> None:
        cells = [
            f"{'-' if row[key] is None else format(row[key], form):>{width}}"
            for _, key, form, width in self.columns
        ]
        self.console.print(" ".join(cells))

    def stopped(self, epoch: int, best: int, kept: bool) -> None:
        what = "its weights are kept" if kept else "the last weights are kept"
        self.console.print(f"stopped after epoch {epoch}; lowest validation loss in {best}, {what}")
