"""How a training run looks in a terminal: one line an epoch, a bar for the steps."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qwd.setting import short
from qwd.train.progress import Plan, Watcher


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

    def __enter__(self) -> "TrainingProgress":
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def begins(self, plan: Plan, epochs_done: int) -> None:
        config, audit = plan.config, plan.audit
        decay = f"{audit.decayed:,} under {config.form} decay {short(config.wd)}"
        self.console.print(
            f"{config.model} on {config.data}, {plan.parameters:,} parameters, "
            f"{decay if audit.decayed else 'none decayed'}, {config.optimizer}, "
            f"{config.epochs} epochs of {plan.steps_per_epoch} steps, {plan.device}"
        )
        for note in plan.notes:
            self.console.print(note)
        if plan.dose is not None and audit.decayed:
            faint = f": {plan.advice}" if plan.advice else ""
            self.console.print(
                f"dose {plan.dose:.3g} (what decay takes from an idle weight){faint}"
            )
        if epochs_done:
            self.console.print(f"resumed after epoch {epochs_done}")
        self.console.print(
            "epoch     loss   train     val       gap     range    folded  range/std       s"
        )

    def stepped(self, epoch: int, step: int, steps: int) -> None:
        self.bar.update(self.task, completed=step, total=steps, epoch=epoch)

    def epoch_ended(self, row: dict[str, float | None]) -> None:
        def shown(name: str, form: str) -> str:
            value = row[name]
            return "-" if value is None else format(value, form)

        self.console.print(
            f"{shown('epoch', 'd'):>5} {shown('train_loss', '.4f'):>8} "
            f"{shown('train_accuracy', '.2%'):>7} {shown('validation_accuracy', '.2%'):>7} "
            f"{shown('gap_pp', '+.2f'):>6} pp {shown('range', '.4f'):>9} "
            f"{shown('folded_range', '.4f'):>9} {shown('range_over_std', '.2f'):>10} "
            f"{shown('seconds', '.1f'):>7}"
        )

    def stopped(self, epoch: int, best: int, kept: bool) -> None:
        what = "its weights are kept" if kept else "the last weights are kept"
        self.console.print(f"stopped after epoch {epoch}; lowest validation loss in {best}, {what}")
