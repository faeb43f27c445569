"""Starting from another run: its weights, and its settings where none are given."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from qwd.config import COURSE_SETTINGS, TrainConfig
from qwd.errors import UsageError
from qwd.quantize.constant_channels import zero_constant_channels
from qwd.quantize.folding import branches_fused
from qwd.train.data import Data
from qwd.train.layout import WEIGHTS
from qwd.train.prepare import model_for, trained_model
from qwd.train.run import read_config, read_run

SLOWER = 10
"""A trained network is tuned at this part of its rate."""

FUSED_FROM_SCRATCH = (
    "--qat: branches are fused before the training, which so has none; train in float first and "
    "start from that run with --from"
)


def continued(given: Mapping[str, Any]) -> TrainConfig:
    """The settings of a training; where it starts from a run, those not given are the run's.

    Raises InputError where there is no such run.
    """
    if given.get("from_") is None:
        return TrainConfig(**given)
    run = read_config(Path(given["from_"]))
    left_out = {*COURSE_SETTINGS, *_of_other_things(given, run)}
    taken = {name: value for name, value in vars(run).items() if name not in left_out}
    if given.get("optimizer", run.optimizer) == run.optimizer:
        taken["lr"] = run.lr / SLOWER
    return TrainConfig(**{**taken, **given})


def _of_other_things(given: Mapping[str, Any], run: TrainConfig) -> Iterator[str]:
    """Settings of ``run`` that belong to what is not taken over: other data, another optimizer."""
    if given.get("data", run.data) != run.data:
        yield from ("mean", "std", "image_size")
    if given.get("optimizer", run.optimizer) != run.optimizer:
        yield from ("momentum", "nesterov", "optimizer_option", "form")
    if {"optimizer", "form"} & set(given):
        yield from ("cautious", "lr_corrected", "proximal")


def starting_network(config: TrainConfig, data: Data) -> tuple[nn.Module, list[str]]:
    """The network that training begins with, and what a user should know about it.

    Freshly initialized, or with the weights of another run. Raises InputError where that run
    cannot be read or is unfinished, and UsageError where it trained another model.
    """
    if config.from_ is None:
        model, base = model_for(config, data), None
    else:
        base = read_run(Path(config.from_)).config
        if base.model != config.model:
            raise UsageError(
                f"--model {config.model}: the run in {config.from_} trained {base.model}; "
                "leave --model out"
            )
        model = trained_model(base, data, Path(config.from_) / WEIGHTS)
    if not config.qat:
        return model, []
    notes = [
        f"--qat: {name}: weights of {n} channels without variance were set to 0, which changes no "
        "output: folded, they would have set the range of all others"
        for name, n in zero_constant_channels(model).items()
    ]
    if any(hasattr(module, "deploy_form") for module in model.modules()):
        model = branches_fused(model)
        notes += [FUSED_FROM_SCRATCH] if base is None else []
    return model, notes
