"""The files of a run folder and its place; free of torch.

``config.yaml`` (all that is needed to repeat the run), ``environment.json`` (the machine and the
versions), ``decay.json`` (what is decayed by how much, verified), ``metrics.csv`` (a row per
epoch), ``checkpoint.pt`` (the latest state, to resume from), ``model.safetensors`` (the trained
weights), ``epochs/`` (those of every Nth epoch, where they are kept), ``qat.safetensors`` (the
grids of a quantization-aware training), ``report.json`` (written by the report).
"""

import os
import re
from pathlib import Path

from qwd.config import TrainConfig
from qwd.setting import short

CONFIG, ENVIRONMENT, METRICS = "config.yaml", "environment.json", "metrics.csv"
DECAY = "decay.json"
CHECKPOINT, WEIGHTS, REPORT = "checkpoint.pt", "model.safetensors", "report.json"
GRIDS = "qat.safetensors"

RUNS = Path("runs")


def is_run(path: Path) -> bool:
    """Whether ``path`` is a run folder, finished or not."""
    return os.path.isfile(path / CONFIG)  # False, too, for a name that is too long


def is_finished(path: Path) -> bool:
    """Whether the run in ``path`` has its trained weights."""
    return (path / WEIGHTS).is_file()


def runs_below(folder: Path) -> list[Path]:
    """The finished runs in the folders of a folder, as a sweep has them."""
    found = sorted(path.parent for path in folder.glob(f"*/*/{CONFIG}"))
    return [path for path in found if is_finished(path)]


def epoch_weights(epoch: int) -> Path:
    """Where in a run folder the weights after an epoch, counted from 1, are kept."""
    return Path("epochs") / f"epoch{epoch:04}.safetensors"


def default_folder(config: TrainConfig) -> Path:
    """``runs/<model>-<data>-wd<wd>-s<seed>``, with ``-w<bits>-qat`` where it is that."""
    data = config.data
    if data.startswith("imagefolder:"):
        data = "imagefolder-" + Path(data.removeprefix("imagefolder:")).resolve().name
    name = f"{config.model}-{data}-wd{short(config.wd)}-s{config.seed}"
    if config.qat:
        name += f"-w{config.bits}-qat"
    elif config.from_:
        name += "-tuned"
    return RUNS / re.sub(r"[^\w.-]+", "-", name)
