"""How far a sensitivity or the remedies are: on stderr, in one line where that is a terminal."""

import sys
import time

import click

from qwd.report.watching import Watcher

LINES = 10
"""lines of a study where stderr is no terminal"""


class StudyProgress(Watcher):
    """Says how many evaluations there will be, counts them, and says how long they will take."""

    def __init__(self) -> None:
        self.study = ""
        self.done = self.sure = self.most = 0
        self.started = 0.0
        self.in_one_line = sys.stderr.isatty()

    def begins(self, study: str, evaluations: int, further: int, n: int) -> None:
        """See `Watcher.begins`."""
        self.study, self.done, self.sure, self.most = study, 0, evaluations, evaluations + further
        self.started = time.monotonic()
        times = "evaluation" if evaluations == 1 else "evaluations"
        more = f", then at most {further} more" if further else ""
        click.echo(f"{study}: {evaluations} {times} of {n:,} images{more}", err=True)

    def evaluated(self) -> None:
        """See `Watcher.evaluated`."""
        self.done += 1
        of = f"of {self.sure}" if self.done <= self.sure else f"of at most {self.most}"
        line = f"{self.study}: {self.done} {of}{self._left()}"
        if self.in_one_line:
            click.echo(f"\r{line:<60}", err=True, nl=False)
        elif self.done % max(1, self.sure // LINES) == 0 or self.done >= self.sure:
            click.echo(line, err=True)

    def ended(self) -> None:
        """See `Watcher.ended`."""
        if self.in_one_line and self.done:
            click.echo(err=True)
        self.done = 0

    def _left(self) -> str:
        """How long the rest takes, where that is minutes."""
        seconds = (time.monotonic() - self.started) / self.done * (self.sure - self.done)
        return f", about {seconds / 60:.0f} min left" if seconds >= 60 else ""
