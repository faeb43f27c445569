"""Decay forms against the tools that others wrote: torch.optim, timm, pytorch_optimizer, optax.

All train the same small classifier from the same start on the same batches. A tool that runs
torch's own operations in the same order must give the same bits. Where it orders or rounds them
otherwise, float64 holds both to a relative 1e-10 after 100 steps: each step differs by units in the
last place (1e-16) and the problem is smooth, so that nothing amplifies them further.
"""

import functools
import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

import qwd.train.vision  # timm imports torchvision, which this makes importable everywhere
from qwd import decay
from qwd.decay import CONVENTIONS, Form, Schedule, forms, schedules
from tests.decay.problems import same

STEPS, LR, WD = 100, 0.05, 0.1
DTYPES = [torch.float32, torch.float64]
OPTIM = torch.optim


@pytest.fixture(scope="module")
def timm() -> Any:
    pytest.importorskip("timm.optim", reason="timm is not installed: pip install timm")
    return importlib.import_module("timm")


@pytest.fixture(scope="module")
def others() -> Any:
    reason = "pytorch_optimizer is not installed: pip install pytorch-optimizer"
    return pytest.importorskip("pytorch_optimizer", reason=reason)


@pytest.fixture
def optax() -> Iterator[Any]:
    """optax, with float64 for the length of a test."""
    reason = "optax is not installed: pip install optax (it brings jaxlib, 350 MB)"
    module = pytest.importorskip("optax", reason=reason)
    with pytest.importorskip("jax").enable_x64(True):
        yield module


def classifier(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3)).to(dtype)


def batches(dtype: torch.dtype = torch.float64) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    for _ in range(STEPS):
        labels = torch.randint(3, (16,), generator=generator)
        noise = torch.randn(16, 5, generator=generator, dtype=torch.float64)
        yield (centres[labels] + noise).to(dtype), labels


def half_cosine(step: int) -> float:
    return 0.5 + 0.5 * math.cos(math.pi * step / STEPS)


def trained(model: nn.Module, optimizer: Optimizer, rate: Callable[[int], float]) -> list[Tensor]:
    """The weights after training at ``rate(step)`` times the optimizer's rate."""
    scheduler = LambdaLR(optimizer, rate)
    for images, labels in batches(next(model.parameters()).dtype):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        scheduler.step()
    return [p.detach().clone() for p in model.parameters()]


def ours(
    make: Callable[..., Optimizer],
    form: Form,
    dtype: torch.dtype = torch.float64,
    *,
    rate: Callable[[int], float] = half_cosine,
    schedule: Schedule = schedules.constant,
    lr_corrected: str | None = None,
    decay_all: bool = False,
    **options: Any,
) -> list[Tensor]:
    """The weights after training with an optimizer of no decay of its own, and ``form``."""
    model = classifier(dtype)
    groups = decay.param_groups(
        model, WD, lr_corrected=lr_corrected, decay_bias=decay_all, decay_norm=decay_all
    )
    optimizer = make(groups, lr=LR, weight_decay=0.0, **options)
    decay.attach(optimizer, form, schedule=schedule)
    return trained(model, optimizer, rate)


def close(one: list[Tensor], other: list[Tensor], rtol: float = 1e-10) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol / 100)


MOMENTUM: dict[str, Any] = {"momentum": 0.9}
NESTEROV: dict[str, Any] = {"momentum": 0.9, "nesterov": True}
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


TIMM_MODELS: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "mobilenetv3_small_100": {},
    "efficientnet_b0": {},
    # What the models list in `no_weight_decay` is tokens and positions.
    "vit_tiny_patch16_224": {"decay_embedding": False},
    "swin_tiny_patch4_window7_224": {},
    # timm leaves out every vector, the factors of layers (layer scale) among them.
    "convnext_atto": {"no_decay": [r"\.gamma$"]},
    "cait_xxs24_224": {"decay_embedding": False, "no_decay": [r"\.gamma_\d$"]},
}
TORCHVISION_MODELS: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "mobilenet_v2": {},
    "shufflenet_v2_x0_5": {},
    "convnext_tiny": {},
    # By its name a bias; timm goes by the number of axes, and torchvision's Swin lists nothing.
    "swin_t": {"factors": {"relative_position_bias_table": 1.0}},
}


def decayed_by_timm(timm, model: nn.Module) -> set[str]:
    names = {id(p): n for n, p in model.named_parameters()}
    listed = getattr(model, "no_weight_decay", lambda: set())()
    groups = timm.optim.param_groups_weight_decay(model, WD, no_weight_decay_list=listed)
    return {names[id(p)] for g in groups if g["weight_decay"] for p in g["params"]}


def decayed_by_qwd(model: nn.Module, **options: Any) -> set[str]:
    groups = decay.param_groups(model, WD, **options)
    return {name for g in groups if g["decay"] for name, _ in g["params"]}


@pytest.mark.parametrize("name", TIMM_MODELS)
def test_exclusions_are_those_of_timm(timm, name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert decayed_by_qwd(model, **TIMM_MODELS[name]) == decayed_by_timm(timm, model)


@pytest.mark.parametrize("name", TORCHVISION_MODELS)
def test_exclusions_on_torchvision_models_are_those_of_timm(timm, name: str) -> None:
    with torch.device("meta"):
        model = getattr(qwd.train.vision.models, name)()
    options = TORCHVISION_MODELS[name]
    assert decayed_by_qwd(model, **options) == decayed_by_timm(timm, model)


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


def with_optax(optax, transform) -> list[Tensor]:
    """The weights after training with an optax transform, on torch's gradients."""
    jnp = pytest.importorskip("jax.numpy")
    model = classifier()
    weights = {n: jnp.asarray(p.detach().numpy()) for n, p in model.named_parameters()}
    state = transform.init(weights)
    for images, labels in batches():
        F.cross_entropy(model(images), labels).backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        slopes = {n: jnp.asarray(g.numpy()) for n, g in grads.items()}
        updates, state = transform.update(slopes, state, weights)
        weights = optax.apply_updates(weights, updates)
        for name, parameter in model.named_parameters():
            parameter.data = torch.from_dlpack(weights[name]).clone()
            parameter.grad = None
    return [p.detach() for p in model.parameters()]


def matrices(weights: dict) -> dict:
    return {name: value.ndim > 1 for name, value in weights.items()}


def optax_cases(optax) -> dict[str, tuple[Any, Callable[[], list[Tensor]]]]:
    """Each form as a transform, masked to matrices, and as qwd has it."""
    added, chain, adamw = optax.add_decayed_weights, optax.chain, optax.adamw
    lr, wd = (optax.cosine_decay_schedule(peak, STEPS) for peak in (LR, WD))
    moving, scaled = optax.trace(0.9), optax.scale_by_learning_rate(lr)
    adam_with = functools.partial(ours, OPTIM.AdamW, forms.decoupled)
    sgd_with = functools.partial(ours, OPTIM.SGD)
    return {
        "sgd, l2": (
            chain(added(WD, matrices), optax.sgd(lr, 0.9)),
            lambda: sgd_with(forms.l2, **MOMENTUM),
        ),
        "sgd, l2, nesterov": (
            chain(added(WD, matrices), optax.sgd(lr, 0.9, nesterov=True)),
            lambda: sgd_with(forms.l2, **NESTEROV),
        ),
        "sgd, decoupled": (
            chain(moving, added(WD, matrices), scaled),
            lambda: sgd_with(forms.decoupled, **MOMENTUM),
        ),
        "sgd, independent": (
            chain(moving, scaled, added(-WD, matrices)),
            lambda: sgd_with(forms.independent, **MOMENTUM),
        ),
        "sgd, proportional": (
            chain(moving, scaled, added(lambda t: -wd(t), matrices)),
            lambda: sgd_with(forms.independent, schedule=schedules.proportional, **MOMENTUM),
        ),
        "adam, l2": (
            chain(added(WD, matrices), optax.adam(lr)),
            lambda: ours(OPTIM.Adam, forms.l2),
        ),
        "adamw": (adamw(lr, weight_decay=WD, mask=matrices), adam_with),
        "adamw, all": (adamw(lr, weight_decay=WD), lambda: adam_with(decay_all=True)),
        "adamw, corrected": (
            adamw(lr, weight_decay=wd, mask=matrices),
            lambda: adam_with(lr_corrected="weight"),
        ),
        "adamw, cosine": (
            adamw(lr, weight_decay=optax.cosine_decay_schedule(WD, 80, 0.2), mask=matrices),
            lambda: adam_with(schedule=schedules.cosine(80, 0.2)),
        ),
        "adamw, linear": (
            adamw(lr, weight_decay=optax.linear_schedule(WD, 0.3 * WD, 60), mask=matrices),
            lambda: adam_with(schedule=schedules.linear(60, 0.3)),
        ),
        "adamw, piecewise": (
            adamw(
                lr,
                weight_decay=optax.piecewise_constant_schedule(WD, {30: 0.5, 70: 0.0}),
                mask=matrices,
            ),
            lambda: adam_with(schedule=schedules.piecewise({30: 0.5, 70: 0.0})),
        ),
    }


OPTAX_CASES = [
    "sgd, l2",
    "sgd, l2, nesterov",
    "sgd, decoupled",
    "sgd, independent",
    "sgd, proportional",
    "adam, l2",
    "adamw",
    "adamw, all",
    "adamw, corrected",
    "adamw, cosine",
    "adamw, linear",
    "adamw, piecewise",
]


@pytest.mark.parametrize("case", OPTAX_CASES)
def test_optax(optax, case: str) -> None:
    # optax computes its linear schedule in float32 even where everything else is float64.
    rtol = 1e-6 if case == "adamw, linear" else 1e-10
    transform, as_qwd = optax_cases(optax)[case]
    close(with_optax(optax, transform), as_qwd(), rtol)


IDLE_RATES = [
    LR * min((t + 1) / 100, 1) * (0.5 + 0.5 * math.cos(math.pi * t / 2000)) for t in range(2000)
]
DOSE = 0.5


def left(optimizer: Optimizer, penalty: float = 0.0) -> float:
    """What an optimizer's decay leaves of a weight without gradient, or a penalty in its loss."""
    (group,) = optimizer.param_groups
    (weight,) = group["params"]
    for group["lr"] in IDLE_RATES:
        optimizer.zero_grad()
        (penalty * weight.square()).sum().backward()
        optimizer.step()
    return weight.item()


def idle_group(**entries: Any) -> list[dict[str, Any]]:
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    return [{"params": [weight], "initial_lr": max(IDLE_RATES), **entries}]


def left_by_qwd(form: Form, wd: float, schedule: Schedule = schedules.constant) -> float:
    optimizer = OPTIM.SGD(idle_group(decay=wd), lr=LR, momentum=0.9)
    decay.attach(optimizer, form, schedule=schedule)
    return left(optimizer)


def left_by_torch(name: str, wd: float, **options: Any) -> float:
    return left(getattr(OPTIM, name)(idle_group(), lr=LR, weight_decay=wd, **options))


def left_by_timm(timm, name: str, wd: float) -> float:
    create = timm.optim.create_optimizer_v2
    return left(create(idle_group(), opt=name, lr=LR, weight_decay=wd, momentum=0.9))


def left_by_others(others, name: str, wd: float, **options: Any) -> float:
    return left(getattr(others, name)(idle_group(), lr=LR, weight_decay=wd, **options))


def left_by_optax(optax, transform_at: Callable[[Any], Any]) -> float:
    jax, jnp = pytest.importorskip("jax"), pytest.importorskip("jax.numpy")
    rates = jnp.asarray(IDLE_RATES)
    transform, weight = transform_at(lambda t: rates[t]), jnp.ones(1)

    def step(carried, _):
        weight, state = carried
        updates, state = transform.update(jnp.zeros(1), state, weight)
        return (optax.apply_updates(weight, updates), state), None

    (weight, _), _ = jax.lax.scan(step, (weight, transform.init(weight)), length=len(IDLE_RATES))
    return float(weight[0])


LEFT: dict[str, tuple[str, Callable[..., float]]] = {
    "qwd l2": ("", lambda wd: left_by_qwd(forms.l2, wd)),
    "qwd decoupled": ("", lambda wd: left_by_qwd(forms.decoupled, wd)),
    "qwd independent": ("", lambda wd: left_by_qwd(forms.independent, wd)),
    "qwd independent, proportional": (
        "",
        lambda wd: left_by_qwd(forms.independent, wd, schedules.proportional),
    ),
    "penalty lambda * |w|^2 in the loss": (
        "",
        lambda wd: left(OPTIM.SGD(idle_group(), lr=LR, momentum=0.9), penalty=wd),
    ),
    "torch.optim.SGD": ("", lambda wd: left_by_torch("SGD", wd, momentum=0.9)),
    "torch.optim.AdamW": ("", lambda wd: left_by_torch("AdamW", wd)),
    "timm sgd": ("timm", lambda wd, timm: left_by_timm(timm, "sgd", wd)),
    "timm sgdw, adamw": ("timm", lambda wd, timm: left_by_timm(timm, "sgdw", wd)),
    "pytorch_optimizer weight_decouple": (
        "others",
        lambda wd, others: left_by_others(others, "SGDW", wd, momentum=0.9),
    ),
    "pytorch_optimizer fixed_decay": (
        "others",
        lambda wd, others: left_by_others(others, "Lion", wd, fixed_decay=True),
    ),
    "optax.add_decayed_weights, then sgd": (
        "optax",
        lambda wd, optax: left_by_optax(
            optax, lambda lr: optax.chain(optax.add_decayed_weights(wd), optax.sgd(lr, 0.9))
        ),
    ),
    "optax.adamw": (
        "optax",
        lambda wd, optax: left_by_optax(optax, lambda lr: optax.adamw(lr, weight_decay=wd)),
    ),
}


@pytest.mark.parametrize("convention", LEFT)
def test_a_converted_coefficient_takes_the_dose_in_the_tool_itself(
    request: pytest.FixtureRequest, convention: str
) -> None:
    tool, left_after = LEFT[convention]
    wd = decay.convert(DOSE, convention, IDLE_RATES, gain=10.0)
    share = left_after(wd, *([request.getfixturevalue(tool)] if tool else []))
    # Over 2000 steps, the sum in place of the product is off by 1e-4; momentum starts from rest.
    rel = 5e-3 if CONVENTIONS[convention].form is forms.l2 else 5e-4
    assert 1 - share == pytest.approx(1 - math.exp(-DOSE), rel=rel)
