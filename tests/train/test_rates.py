"""Learning-rate factors of biases and of depths."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qwd.errors import UsageError
from qwd.registry import MODELS
from qwd.train.rates import rate_factors


def net() -> nn.Sequential:
    """Three layers: 0, 2 and 5."""
    return nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.Conv2d(2, 2, 3, bias=False),
        nn.GroupNorm(1, 2),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def test_biases_but_not_those_of_normalisation() -> None:
    assert rate_factors(net(), bias=2) == {
        "0.weight": 1,
        "0.bias": 2,
        "1.weight": 1,
        "1.bias": 1,
        "2.weight": 1,
        "3.weight": 1,
        "3.bias": 1,
        "5.weight": 1,
        "5.bias": 2,
    }


def test_depths_are_spaced_evenly_on_a_logarithmic_scale() -> None:
    factors = rate_factors(net(), depth=0.01)
    assert factors == pytest.approx(
        {
            "0.weight": 0.01,
            "0.bias": 0.01,
            "1.weight": 0.01,
            "1.bias": 0.01,
            "2.weight": 0.1,
            "3.weight": 0.1,
            "3.bias": 0.1,
            "5.weight": 1,
            "5.bias": 1,
        }
    )
    assert (factors["0.weight"], factors["5.weight"]) == (0.01, 1)


def test_factors_multiply() -> None:
    factors = rate_factors(net(), bias=2, depth=0.01)
    assert factors["0.bias"] == 0.02
    assert factors["5.bias"] == 2


def test_what_comes_before_the_first_layer_goes_with_it() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 2))
    assert rate_factors(model, depth=0.5)["0.weight"] == 0.5


def test_one_layer_has_the_full_rate() -> None:
    assert set(rate_factors(nn.Linear(3, 3), depth=0.01).values()) == {1}
    assert rate_factors(nn.BatchNorm1d(3), depth=0.01) == {"weight": 1, "bias": 1}
    assert rate_factors(nn.ReLU()) == {}


def test_a_normalisation_layer_of_many_dimensions_is_no_layer() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm([4, 4]), nn.Linear(4, 2))
    assert rate_factors(model, depth=0.1)["1.weight"] == 0.1


def test_attention_is_a_layer_and_so_is_its_output() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 2), nn.Linear(4, 4))
    factors = rate_factors(model, depth=1 / 8)
    assert factors["1.in_proj_weight"] == factors["1.in_proj_bias"] == pytest.approx(1 / 4)
    assert factors["1.out_proj.weight"] == factors["1.out_proj.bias"] == pytest.approx(1 / 2)


def test_a_parametrized_layer_is_one_layer() -> None:
    model = nn.Sequential(
        nn.Linear(4, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4)
    )
    factors = rate_factors(model, bias=2, depth=0.01)
    of_second = {name: factor for name, factor in factors.items() if name.startswith("1.")}
    assert len(of_second) == 3
    assert of_second.pop("1.bias") == pytest.approx(0.2)
    assert list(of_second.values()) == pytest.approx([0.1, 0.1])
    alone = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    assert set(rate_factors(alone, depth=0.01).values()) == {1}


def test_frozen_parameters_have_no_factor_and_change_no_other() -> None:
    model = net()
    whole = rate_factors(model, bias=2, depth=0.01)
    model[0].requires_grad_(False)
    expected = {name: factor for name, factor in whole.items() if not name.startswith("0.")}
    assert rate_factors(model, bias=2, depth=0.01) == expected


@given(st.integers(2, 9), st.floats(1e-4, 1))
def test_neighbours_differ_by_one_ratio(layers: int, depth: float) -> None:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(layers)))
    factors = [f for n, f in rate_factors(model, depth=depth).items() if n.endswith("weight")]
    ratio = depth ** (-1 / (layers - 1))
    expected = [depth * ratio**place for place in range(layers)]
    assert factors == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", MODELS.names())
def test_contract_every_trainable_parameter_has_a_factor(name: str) -> None:
    model = MODELS.get(name)(in_channels=3, image_size=32, num_classes=10)
    factors = rate_factors(model, depth=0.1)
    assert list(factors) == [n for n, p in model.named_parameters() if p.requires_grad]
    assert min(factors.values()) == 0.1
    assert max(factors.values()) == 1
    assert list(factors.values())[-1] == 1
    assert set(rate_factors(model).values()) == {1.0}


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_wrong_factors(value: float) -> None:
    with pytest.raises(UsageError, match="--bias-lr"):
        rate_factors(net(), bias=value)
    with pytest.raises(UsageError, match="--depth-lr"):
        rate_factors(net(), depth=value)


def test_a_tied_weight_is_a_layer_where_it_first_appears() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5))
    model[2].weight = model[0].weight
    factors = rate_factors(model, depth=0.25)
    assert factors == {"0.weight": 0.25, "1.weight": 1, "1.bias": 1, "2.bias": 1}
