"""Settings of a training's length, its batches, and the machine."""

from dataclasses import dataclass

from qwd import parsing
from qwd.setting import setting


@dataclass(frozen=True, kw_only=True)
class LengthSettings:
    """How long, in which batches, from which seed, on what."""

    epochs: int = setting(
        None,
        parsing.integer(least=1, most=100_000),
        "passes over the training data; default: 60, or 10 after --from",
    )
    early_stop: int | None = setting(
        None,
        parsing.integer(least=1),
        "stop after this many epochs without a lower validation loss, and keep the best weights",
    )
    keep_every: int | None = setting(
        None,
        parsing.integer(least=1),
        "keep the weights of every Nth epoch, for the trajectory in a report of RUN/epochs",
    )
    batch_size: int = setting(32, parsing.integer(least=1, most=65_536), "images per step")
    seed: int = setting(
        0, parsing.integer(least=0), "seed of initialization, data order and augmentation"
    )
    amp: bool = setting(False, parsing.flag, "bfloat16 automatic mixed precision, float32 weights")
    compile: bool = setting(
        False, parsing.flag, "compile the training step: minutes at first, then faster steps"
    )
    device: str = setting(
        "auto",
        parsing.matching(r"auto|cpu|cuda(:[0-9]{1,3})?", "auto, cpu, cuda or cuda:N"),
        "auto (a GPU where there is one), cpu, cuda or cuda:N",
        shared=True,
    )
    threads: int | None = setting(
        None,
        parsing.integer(least=1, most=1024),
        "CPU threads; default: as many as cores",
        shared=True,
    )
