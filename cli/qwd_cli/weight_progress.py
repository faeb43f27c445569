"""How far the measuring of a large checkpoint is: on stderr, bytes read and time left."""

import sys
import time

import click

LARGE = 100_000_000
"""bytes of weights from which on progress is shown"""
LINES = 10
"""lines where stderr is no terminal"""


class WeightProgress:
    """Called with the bytes that are done and the bytes of all weights of a model."""

    def __init__(self) -> None:
        self.in_one_line = sys.stderr.isatty()
        self.started: float | None = None
        self.before = 0
        self.steps = 0

    def __call__(self, done: int, of: int) -> None:
        """Say how far it is, where there is enough to do."""
        if of < LARGE:
            return
        now = time.monotonic()
        if self.started is None or done <= self.before:
            self.started, self.steps = now, 0
        self.before = done
        step = done * LINES // of
        if self.in_one_line:
            end = "\n" if done >= of else ""
            click.echo(f"\r{self._line(done, of, now):<60}{end}", err=True, nl=False)
        elif step > self.steps:
            click.echo(self._line(done, of, now), err=True)
        self.steps = step

    def _line(self, done: int, of: int, now: float) -> str:
        seconds = now - (self.started or now)
        left = f", about {seconds * (of - done) / done:.0f} s left" if seconds > 1 else ""
        return f"weights: {_size(done)} of {_size(of)} read{left if done < of else ''}"


def _size(n: int) -> str:
    return f"{n / 1e9:.2f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"
