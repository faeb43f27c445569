"""The picture of a range test: loss against rate, and the two rates that are read from it."""

import logging
from pathlib import Path

from qwd.errors import UsageError
from qwd.files import write_atomically
from qwd.train.find_lr import RangeTest

FORMATS = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""What can be written, and the metadata without which the same test gives the same bytes."""


def plot(test: RangeTest, path: str | Path) -> None:
    """Draw ``test`` into a .png, .svg or .pdf file, replacing it; UsageError for another ending.

    StorageError as `qwd.files.write_atomically`.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise UsageError(f"{path}: expected a file that ends in .png, .svg or .pdf")
    # What it says of its caches when it is first used is nobody's affair here.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib
    from matplotlib.figure import Figure

    rates = [point.lr for point in test.points]
    losses = [point.loss for point in test.points]
    smoothed = [point.smoothed for point in test.points]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(rates, losses, color="0.75", linewidth=0.8, label="loss of each batch")
    axes.semilogx(rates, smoothed, color="C0", label="smoothed")
    axes.axvline(test.steepest, color="C2", linestyle=":", label=f"steepest {test.steepest:.2g}")
    axes.axvline(
        test.tenth,
        color="C3",
        linestyle="--",
        label=f"suggested {test.suggestion:g}: a tenth of the lowest's",
    )
    # A diverging loss would flatten everything else.
    axes.set_ylim(0, 1.15 * max(*smoothed, losses[0]))
    axes.set(xlabel="learning rate", ylabel="training loss (nats)", title=_title(test))
    axes.legend(fontsize="small")
    with matplotlib.rc_context({"svg.hashsalt": "qwd"}):
        write_atomically(
            path,
            lambda temporary: figure.savefig(
                temporary, format=kind, dpi=150, metadata=FORMATS[kind]
            ),
        )


def _title(test: RangeTest) -> str:
    config = test.config
    # A dollar would begin a formula.
    return f"{config.model} on {config.data}, {config.optimizer}".replace("$", r"\$")
