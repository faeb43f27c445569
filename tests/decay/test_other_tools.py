"""Decay forms against the optimizers that others wrote: torch.optim, timm, pytorch_optimizer."""

from typing import Any

import pytest
import torch
from torch.optim import Optimizer

from qwd.decay import Form, forms
from tests.decay.classifier import (
    DTYPES,
    LR,
    MOMENTUM,
    NESTEROV,
    WD,
    classifier,
    close,
    half_cosine,
    ours,
    trained,
)
from tests.decay.problems import same

OPTIM = torch.optim
SWITCHED = {"decoupled_weight_decay": True}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("name", "form", "switch"),
    [
        ("NAdam", forms.decoupled, SWITCHED),
        ("RAdam", forms.decoupled, SWITCHED),
        ("RAdam", forms.l2, {}),
        ("Adam", forms.decoupled, SWITCHED),
        ("Adadelta", forms.l2, {}),
    ],
)
def test_torch_optim_bitwise(name: str, form: Form, switch: dict, dtype: torch.dtype) -> None:
    make = getattr(OPTIM, name)
    model = classifier(dtype)
    theirs = trained(model, make(model.parameters(), lr=LR, weight_decay=WD, **switch), half_cosine)
    assert same(theirs, ours(make, form, dtype, decay_all=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("name", "make", "form", "options"),
    [
        ("sgd", OPTIM.SGD, forms.l2, NESTEROV),
        ("momentum", OPTIM.SGD, forms.l2, MOMENTUM),
        ("sgdw", OPTIM.SGD, forms.decoupled, NESTEROV),
        ("adam", OPTIM.Adam, forms.l2, {}),
        ("adamw", OPTIM.AdamW, forms.decoupled, {}),
        ("nadamw", None, forms.decoupled, {}),
        ("lion", None, forms.decoupled, {}),
        ("rmsproptf", None, forms.l2, MOMENTUM),
    ],
)
def test_timm_bitwise(timm, name: str, make, form: Form, options: dict, dtype) -> None:
    """Its optimizers and its exclusions. Without ``make``: the form around timm's own optimizer."""
    create, model = timm.optim.create_optimizer_v2, classifier(dtype)
    theirs = create(model, opt=name, lr=LR, weight_decay=WD, momentum=0.9)

    def own(groups, **kwargs) -> Optimizer:
        return create(groups, opt=name, **kwargs)

    assert same(trained(model, theirs, half_cosine), ours(make or own, form, dtype, **options))


@pytest.mark.parametrize(
    ("name", "make", "options"),
    [("sgdw", OPTIM.SGD, NESTEROV), ("adamwlegacy", OPTIM.AdamW, {})],
)
def test_timm_corrected_decay(timm, name: str, make, options: dict) -> None:
    """timm multiplies by lr^2 / lr_max, qwd wd by lr / lr_max and the product by lr."""
    create, model = timm.optim.create_optimizer_v2, classifier()
    theirs = create(
        model, opt=name, lr=LR, weight_decay=WD, momentum=0.9, corrected_weight_decay=True
    )
    expected = trained(model, theirs, half_cosine)
    close(expected, ours(make, forms.decoupled, lr_corrected="weight", **options))
    assert not torch.allclose(expected[0], ours(make, forms.decoupled, **options)[0], rtol=1e-3)


COUPLED: dict[str, Any] = {"weight_decouple": False}
DECOUPLED: dict[str, Any] = {"weight_decouple": True}
FIXED: dict[str, Any] = {"weight_decouple": True, "fixed_decay": True}
FULL = ["Lion", "AdaBelief", "Yogi", "QHAdam", "AdEMAMix"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("form", "switches", "name"),
    [(forms.l2, COUPLED, name) for name in ["SGDW", *FULL]]
    + [(forms.decoupled, DECOUPLED, name) for name in ["SGDW", *FULL]]
    + [(forms.independent, FIXED, name) for name in FULL],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "name", ""),
)
def test_pytorch_optimizer_bitwise(others, name: str, form: Form, switches: dict, dtype) -> None:
    """Each form around an optimizer of theirs, and that optimizer's own decay."""
    make, model = getattr(others, name), classifier(dtype)
    theirs = make(model.parameters(), lr=LR, weight_decay=WD, **switches)
    assert same(trained(model, theirs, half_cosine), ours(make, form, dtype, decay_all=True))


def test_pytorch_optimizer_adamc(others) -> None:
    """Defazio's correction of the layers that are marked, around their optimizer and in it."""
    model = classifier()
    groups = [
        {"params": [p], "weight_decay": WD * (p.ndim > 1), "normalized": name == "0.weight"}
        for name, p in model.named_parameters()
    ]
    expected = trained(model, others.AdamC(groups, lr=LR), half_cosine)
    close(expected, ours(others.AdamC, forms.decoupled, lr_corrected=r"^0\.weight$"))
