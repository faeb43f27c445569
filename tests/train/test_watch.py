"""The figures of the weights in training, against plain float64 arithmetic."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qwd import decay
from qwd.quantize.statistics import mean_range
from qwd.registry import FORMS
from qwd.train.watch import FIGURES, Watch
from tests.train.plain_figures import angle, double, joined, reference, watched_step

WD = 0.01
seeds = st.integers(0, 2**32 - 1)


def small_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3)
    )


def optimizer_of(model: nn.Module, kind: str, form: str, lr=0.05) -> torch.optim.Optimizer:
    groups = decay.param_groups(model, WD, decay_bias=True)
    if kind == "adam":
        optimizer = torch.optim.Adam(groups, lr=lr)
    else:
        optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9)
    decay.attach(optimizer, FORMS.get(form))
    return optimizer


def backward(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(8, 2, 4, 4)).square().mean().backward()


def figure(row: dict[str, float | None], name: str) -> float:
    value = row[name]
    assert value is not None
    return value


@given(seed=seeds, kind=st.sampled_from(["sgd", "adam"]), form=st.sampled_from(["l2", "decoupled"]))
def test_every_figure_is_the_plain_one(seed: int, kind: str, form: str) -> None:
    model = small_network(seed)
    optimizer = optimizer_of(model, kind, form)
    watch = Watch(model, optimizer)
    backward(model, optimizer)
    optimizer.step()
    backward(model, optimizer)
    weights = list(watch.weights.values())
    u, g = double(weights), double([w.grad for w in weights])

    def step() -> None:
        optimizer.step()
        with torch.no_grad():
            weights[0].view(-1)[:7] = 0
            weights[1].view(-1)[3] = 30

    row = watched_step(watch, step)
    v = double(weights)
    expected = reference(u, v, g)
    for i, name in enumerate(watch.weights):
        of_layer = reference(u[i : i + 1], v[i : i + 1], g[i : i + 1])
        expected |= {f"{f}:{name}": value for f, value in of_layer.items()}
    decayed = [p for group in optimizer.param_groups if group["decay"] for p in group["params"]]
    assert any(p.ndim == 1 for p in decayed)
    expected["penalty"] = WD / 2 * np.sum(joined(double(decayed)) ** 2)
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-5), name
    assert figure(row, "outlier_rate") == pytest.approx(1e6 / 150)
    assert figure(row, "zeros") == pytest.approx(7 / 150)
    assert figure(row, "range") == pytest.approx(mean_range(weights))


@pytest.mark.parametrize(
    ("kind", "expected"), [("l2", WD / 2 * 25), ("l1", WD * 7), ("none", None)]
)
def test_penalty_follows_form(kind: str, expected: float | None) -> None:
    w = nn.Parameter(torch.tensor([[3.0, -4.0]]))
    model = nn.ParameterDict({"w": w, "free": nn.Parameter(torch.ones(1, 1))})
    groups = [{"params": [w], "decay": WD}, {"params": [model["free"]]}]
    watch = Watch(model, torch.optim.SGD(groups, lr=0.1), kind)
    row = watched_step(watch, lambda: None)
    assert row["penalty"] == (None if expected is None else pytest.approx(expected))


def test_penalty_has_the_coefficient_of_the_step() -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(decay.param_groups(model, WD), lr=0.1)
    decay.attach(optimizer, FORMS.get("l2"), schedule=decay.schedules.until(1))
    watch = Watch(model, optimizer)
    for factor in (1, 0):
        model(torch.randn(3, 4)).sum().backward()
        penalty = watched_step(watch, optimizer.step)["penalty"]
        assert penalty == pytest.approx(factor * WD / 2 * model.weight.square().sum().item())


@pytest.mark.parametrize("degrees", [90.0, 1.0, math.degrees(1e-6)])
def test_angle_is_exact_however_small(degrees: float) -> None:
    """Also where the step shrinks the weight a thousand times more than it turns it."""
    torch.manual_seed(1)
    u = torch.randn(300, dtype=torch.float64)
    aside = torch.randn(300, dtype=torch.float64)
    aside -= (aside @ u) / (u @ u) * u
    aside *= u.norm() / aside.norm()
    turned = 0.999 * (u * math.cos(math.radians(degrees)) + aside * math.sin(math.radians(degrees)))
    for dtype, accuracy in [(torch.float64, 1e-9), (torch.float32, 1e-5)]:
        model = nn.Linear(30, 10, bias=False).to(dtype)
        model.weight.data = u.view(10, 30).to(dtype, copy=True)
        before = joined(double([model.weight]))
        watch = Watch(model, torch.optim.SGD(model.parameters(), lr=1.0))

        def turn(model: nn.Linear = model, dtype: torch.dtype = dtype) -> None:
            model.weight.data.copy_(turned.view(10, 30).to(dtype))

        row = watched_step(watch, turn)
        exact = angle(before, joined(double([model.weight])))  # the weight is rounded to dtype
        for name in ("angle", "angle:weight"):
            assert row[name] == pytest.approx(exact, rel=accuracy)
        assert row["angle"] == pytest.approx(degrees, rel=1e-9 if dtype == torch.float64 else 0.1)


@given(seed=seeds)
def test_total_angle_is_that_of_all_weights_as_one_vector(seed: int) -> None:
    """Layers that shrink at different rates turn the whole, although none of them turns."""
    torch.manual_seed(seed)
    model = nn.Sequential(*(nn.Linear(3, 3, bias=False) for _ in range(3))).double()
    watch = Watch(model, torch.optim.SGD(model.parameters(), lr=1.0))
    u = double(model.parameters())

    def shrink() -> None:
        for factor, w in zip((1 - 1e-7, 1 - 3e-7, 1.0), model.parameters(), strict=True):
            w.data *= factor

    row = watched_step(watch, shrink)
    assert row["angle"] == pytest.approx(
        angle(joined(u), joined(double(model.parameters()))), rel=1e-6
    )
    assert figure(row, "angle:0.weight") < 1e-12


def test_figures_that_do_not_exist_are_none_in_columns_that_stay() -> None:
    model = nn.ParameterDict(
        {
            "empty": nn.Parameter(torch.zeros(0, 3)),
            "frozen": nn.Parameter(torch.ones(2, 2), requires_grad=False),
            "null": nn.Parameter(torch.zeros(2, 2)),
            "wild": nn.Parameter(torch.tensor([[1.0, math.inf]])),
            "tied": nn.Parameter(torch.eye(2)),
        }
    )
    model["again"] = model["tied"]
    watch = Watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    unwatched = watch.row()
    assert set(unwatched.values()) == {None}
    row = watched_step(watch, lambda: None)
    assert list(row) == list(unwatched)
    assert "angle:tied" in row
    assert "angle:again" not in row
    assert not any("empty" in name for name, value in row.items() if value is not None)
    frozen = {name: row[f"{name}:frozen"] for name in FIGURES}
    assert frozen == {
        "weight_norm": 2.0,
        "update_ratio": 0.0,
        "angle": 0.0,
        "gradient_norm": None,
        "zeros": 0.0,
        "range": 0.0,
        "range_over_std": None,
        "outlier_rate": 0.0,
    }
    assert (row["zeros:null"], row["update_ratio:null"], row["angle:null"]) == (1.0, None, None)
    assert row["range:wild"] is row["weight_norm:wild"] is row["weight_norm"] is None
    assert row["gradient_norm"] is None
    assert watch.row() == unwatched


def test_total_gradient_is_that_of_the_weights_which_have_one() -> None:
    model = nn.ParameterDict({k: nn.Parameter(torch.ones(1, 2)) for k in "abc"})
    watch = Watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    model["a"].grad, model["b"].grad = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    row = watched_step(watch, lambda: None)
    assert (row["gradient_norm"], row["gradient_norm:c"]) == (5.0, None)
    model["b"].grad = torch.tensor([[math.nan, 0.0]])
    row = watched_step(watch, lambda: None)
    assert (row["gradient_norm:a"], row["gradient_norm:b"], row["gradient_norm"]) == (3, None, None)


def test_training_is_the_same_with_and_without() -> None:
    states = []
    for watched in (True, False):
        model = small_network(3)
        optimizer = optimizer_of(model, "sgd", "l2")
        watch = Watch(model, optimizer)
        for _ in range(3):
            model.train()
            backward(model, optimizer)
            if watched:
                watch.before_step()
            optimizer.step()
            if watched:
                watch.after_step()
                with watch.validating(), torch.no_grad():
                    model.eval()(torch.ones(2, 2, 4, 4))
                watch.row()
        states.append((copy.deepcopy(model.state_dict()), torch.get_rng_state()))
    (first, drawn), (second, also_drawn) = states
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert torch.equal(drawn, also_drawn)


def test_unknown_penalty() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="'l3'"):
        Watch(model, torch.optim.SGD(model.parameters(), lr=0.1), "l3")
