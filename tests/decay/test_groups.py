"""Who is decayed."""

import pytest
import torch
from torch import nn

from qwd.decay import param_groups
from qwd.errors import UsageError


class LlamaRMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.norm_of_nothing = nn.Linear(4, 4)
        self.rms = LlamaRMSNorm()
        self.groupnorm = nn.GroupNorm(2, 4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def names(groups: list[dict], decayed: bool) -> set[str]:
    return {n for g in groups if bool(g["decay"]) == decayed for n, _ in g["params"]}


def test_biases_and_normalisation_are_left_out_by_type_not_by_name() -> None:
    groups = param_groups(Net(), 0.1)
    assert names(groups, True) == {
        "conv.weight",
        "norm_of_nothing.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    }
    assert names(groups, False) == {
        *("conv.bias", "bn.weight", "bn.bias", "norm_of_nothing.bias", "rms.weight"),
        *(
            "groupnorm.weight",
            "groupnorm.bias",
            "attention.in_proj_bias",
            "attention.out_proj.bias",
        ),
    }


def test_switches_bring_them_back() -> None:
    assert "bn.weight" in names(param_groups(Net(), 0.1, decay_norm=True), True)
    assert "bn.bias" in names(param_groups(Net(), 0.1, decay_norm=True), True)
    with_bias = names(param_groups(Net(), 0.1, decay_bias=True), True)
    assert "conv.bias" in with_bias
    assert "bn.bias" not in with_bias
    everything = param_groups(Net(), 0.1, decay_bias=True, decay_norm=True)
    assert len(everything) == 1


def test_expressions_exclude_and_one_that_matches_nothing_is_an_error() -> None:
    groups = param_groups(Net(), 0.1, no_decay=(r"^conv\.", "attention"))
    assert names(groups, True) == {"norm_of_nothing.weight"}
    with pytest.raises(
        UsageError, match=r"--no-decay 'conv.weigth' matches no parameter: did you mean"
    ):
        param_groups(Net(), 0.1, no_decay=("conv.weigth",))


def test_a_decay_of_nothing_is_an_error_only_where_there_is_one() -> None:
    with pytest.raises(UsageError, match="every parameter is excluded"):
        param_groups(Net(), 0.1, no_decay=(".",))
    assert names(param_groups(Net(), 0.0, no_decay=(".",)), False)


def test_groups_are_what_torch_optimizers_take() -> None:
    optimizer = torch.optim.SGD(param_groups(Net(), 0.25), lr=0.1)
    assert [group["decay"] for group in optimizer.param_groups] == [0.25, 0.0]
    assert "conv.weight" in optimizer.param_groups[0]["param_names"]
