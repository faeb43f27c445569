"""Optimizers by name and by class, with the arguments that settings give them."""

from typing import Any

import pytest
import torch
from torch import nn

from qwd import decay
from qwd.config import TrainConfig
from qwd.errors import UsageError
from qwd.registry import OPTIMIZERS
from qwd.train.decaying import decaying_optimizer, form_of, param_groups, schedule_of
from qwd.train.models import build as build_model
from qwd.train.optimizers import build, gain


class Plain(torch.optim.Optimizer):
    """Takes neither momentum nor weight_decay."""

    def __init__(self, params, lr: float):
        super().__init__(params, {"lr": lr})

    def step(self, closure=None) -> Any:
        return None


class NoOptimizer:
    def __init__(self, params, lr: float):
        pass


def groups() -> list[dict]:
    return decay.param_groups(nn.Linear(3, 2), 0.1)


def made(**settings) -> torch.optim.Optimizer:
    return build(TrainConfig(**settings), groups(), 0.2)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_contract_no_optimizer_decays_by_itself_and_momentum_arrives(name: str) -> None:
    optimizer = made(optimizer=name, momentum=0.7)
    for group in optimizer.param_groups:
        assert not group.get("weight_decay")
        assert group["lr"] == 0.2
        assert 0.7 in (group.get("momentum"), group.get("betas", (None,))[0])
    decay.attach(optimizer, decay.forms.l2)


@pytest.mark.parametrize(
    "name",
    [
        *("NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "Adafactor", "Rprop", "ASGD"),
        *("RMSprop", "SGD", "Adam", "AdamW"),
    ],
)
def test_every_class_of_torch_optim_is_built_without_a_decay_of_its_own(name: str) -> None:
    model = nn.Linear(3, 2)
    config = TrainConfig(optimizer=f"torch.optim:{name}", wd=0.01, epochs=2)
    optimizer = decaying_optimizer(config, model, 10)
    assert type(optimizer).__name__ == name
    decay.audit(model, optimizer).check()


def test_momentum_is_the_class_own_unless_given() -> None:
    assert made(optimizer="torch.optim:SGD").param_groups[0]["momentum"] == 0
    betas = made(optimizer="torch.optim:NAdam", momentum=0.8).param_groups[0]["betas"]
    assert betas == (0.8, 0.999)
    with pytest.raises(UsageError, match="--momentum 0.8: .* takes neither momentum nor betas"):
        made(optimizer=f"{__name__}:Plain", momentum=0.8)


def test_further_arguments() -> None:
    optimizer = made(
        optimizer="adamw", optimizer_option=("eps=1e-5", "amsgrad=true", "betas=0.8,0.9")
    )
    group = optimizer.param_groups[0]
    assert (group["eps"], group["amsgrad"], group["betas"]) == (1e-5, True, (0.8, 0.9))
    assert made(nesterov=True).param_groups[0]["nesterov"] is True
    assert made(optimizer_option=("dampening=0.5",)).param_groups[0]["dampening"] == 0.5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer_option": ("epsilon=1",)}, "--optimizer sgd --optimizer-option epsilon=1: Typ"),
        ({"optimizer_option": ("weight_decay=1",)}, "weight_decay: this is the option --wd"),
        ({"optimizer_option": ("lr=1",)}, "lr: this is the option --lr"),
        ({"optimizer": "torch.optim:SGDD"}, "--optimizer torch.optim:SGDD: cannot be imported"),
        ({"optimizer": "torch.optim:LBFGS"}, "LBFGS"),
        ({"optimizer": f"{__name__}:NoOptimizer"}, "expected a torch.optim.Optimizer"),
        ({"optimizer": "torch:pi"}, "expected a class of optimizers"),
        ({"nesterov": True, "momentum": 0}, "--optimizer sgd: ValueError: Nesterov momentum"),
    ],
)
def test_what_cannot_be_built_is_one_line(settings: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        made(**settings)
    assert "\n" not in str(caught.value)


def test_gain_follows_the_arguments() -> None:
    assert gain(TrainConfig(momentum=0.9)) == pytest.approx(10)
    dampened = TrainConfig(momentum=0.9, optimizer_option=("dampening=0.9",))
    assert gain(dampened) == pytest.approx(1)
    assert gain(TrainConfig(optimizer="rmsprop")) is None


def test_form_and_schedule_of_settings() -> None:
    assert form_of(TrainConfig(form="decoupled", cautious=True)).name == "cautious"
    assert form_of(TrainConfig(form="l1", proximal=True)).name == "proximal"
    config = TrainConfig(wd_schedule="piecewise", wd_at=("2=0.5", "4.5=0.25"), wd_until=5, epochs=9)
    schedule = schedule_of(config, 10)
    assert [schedule(t, 1.0) for t in (0, 19, 20, 44, 45, 49, 50)] == [
        1,
        1,
        0.5,
        0.5,
        0.25,
        0.25,
        0,
    ]
    linear = schedule_of(TrainConfig(wd_schedule="linear", wd_end=0.5, epochs=4), 10)
    assert [linear(t, 1.0) for t in (0, 20, 40)] == pytest.approx([1, 0.75, 0.5])
    cosine = schedule_of(TrainConfig(wd_schedule="cosine", epochs=4), 10)
    assert cosine(20, 1.0) == pytest.approx(0.5)
    assert schedule_of(TrainConfig(wd_schedule="proportional"), 10)(3, 0.7) == 0.7


def test_who_is_decayed_follows_the_settings() -> None:
    model = build_model("vit", in_channels=1, image_size=8, num_classes=10)
    for asked in (True, False):
        config = TrainConfig(decay_embedding=asked, decay=("^head=3",), no_decay=("patches",))
        found = {n: g["decay"] for g in param_groups(config, model) for n, _ in g["params"]}
        assert found["positions"] == (1e-4 if asked else 0)
        assert found["head.weight"] == pytest.approx(3e-4)
        assert found["patches.weight"] == found["norm.weight"] == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"wd_until": 0.04}, "--wd-until 0.04: leaves no step to --wd 0.0001; an epoch has 10"),
        ({"wd_until": 10}, "--wd-until 10: must be at most --epochs 9"),
        ({"wd_at": ("0=0",)}, "--wd-at 0=0: leaves no step to --wd"),
        ({"wd_at": ("0=0", "3=0")}, "--wd-at 0=0,3=0: leaves no step to --wd"),
        ({"wd_at": ("0=0", "3=1"), "wd_until": 3}, "--wd-at 0=0,3=1 --wd-until 3.0: leaves no st"),
        ({"wd_at": ("9=0.5",)}, "--wd-at 9=0.5: must be before the end of --epochs 9"),
        ({"wd_at": ("2=0.5", "2.0=1")}, "two of the entries are for step 20, at epoch 2"),
        ({"wd_at": ("2=0.5", "2.01=1")}, "two of the entries are for step 20, at epoch 2.01"),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_refused(settings: dict, words: str) -> None:
    if "wd_at" in settings:
        settings = settings | {"wd_schedule": "piecewise"}
    with pytest.raises(UsageError, match=words):
        schedule_of(TrainConfig(epochs=9, **settings), 10)


def test_a_schedule_that_leaves_something_or_of_no_decay_is_not() -> None:
    late = TrainConfig(wd_schedule="piecewise", wd_at=("0=0", "8.9=1"), epochs=9)
    assert schedule_of(late, 10)(89, 1.0) == 1
    assert schedule_of(TrainConfig(wd_until=9, epochs=9), 10)(89, 1.0) == 1
    assert schedule_of(TrainConfig(wd_until=0.1, epochs=9), 10)(0, 1.0) == 1
    for nothing in (TrainConfig(wd=0.0, wd_until=0.01), TrainConfig(form="none", wd_until=0.01)):
        schedule_of(nothing, 10)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"optimizer": "torch.optim:SparseAdam"},
            "--optimizer torch.optim:SparseAdam: .* does not support dense gradients",
        ),
        (
            {"optimizer": "adam", "optimizer_option": ("capturable=true",)},
            "--optimizer adam --optimizer-option capturable=true: .* supported devices",
        ),
    ],
)
def test_an_optimizer_that_cannot_step_here_is_wrong_use(settings: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        decaying_optimizer(TrainConfig(**settings), nn.Linear(3, 2), 10)
