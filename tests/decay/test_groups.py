"""Who is decayed."""

import re

import pytest
import torch
from torch import nn

from qwd.decay import param_groups, parameter_kinds
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
        UsageError,
        match=r"--no-decay '\^conv\\.weigth\$' matches no parameter: did you mean 'conv.weight'",
    ):
        param_groups(Net(), 0.1, no_decay=(r"^conv\.weigth$",))
    with pytest.raises(UsageError, match="known: conv.weight, conv.bias, .* and 8 more"):
        param_groups(Net(), 0.1, no_decay=("zzzzqqqq",))
    with pytest.raises(UsageError, match="'@biass': no such kind, did you mean '@bias'"):
        param_groups(Net(), 0.1, no_decay=("@biass",))
    with pytest.raises(UsageError, match="no regular expression"):
        param_groups(Net(), 0.1, no_decay=("(",))


def test_a_decay_of_nothing_is_an_error_only_where_there_is_one() -> None:
    with pytest.raises(UsageError, match="every parameter is excluded"):
        param_groups(Net(), 0.1, no_decay=(".",))
    assert names(param_groups(Net(), 0.0, no_decay=(".",)), False)


def test_groups_are_what_torch_optimizers_take() -> None:
    optimizer = torch.optim.SGD(param_groups(Net(), 0.25), lr=0.1)
    assert [group["decay"] for group in optimizer.param_groups] == [0.25, 0.0]
    assert "conv.weight" in optimizer.param_groups[0]["param_names"]


def coefficients(groups: list[dict]) -> dict[str, float]:
    return {n: g["decay"] for g in groups for n, _ in g["params"]}


def test_factors_multiply_the_last_pattern_counts_and_exclusion_wins() -> None:
    found = coefficients(
        param_groups(
            Net(),
            0.1,
            factors={"weight": 2.0, "^conv": 0.5, "@norm": 3.0},
            no_decay=("groupnorm",),
        )
    )
    assert found["norm_of_nothing.weight"] == pytest.approx(0.2)
    assert found["conv.weight"] == found["conv.bias"] == pytest.approx(0.05)
    assert found["bn.weight"] == found["rms.weight"] == pytest.approx(0.3)
    assert found["groupnorm.weight"] == 0
    for factor in (-1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="--decay weight=.*expected a factor of at least 0"):
            param_groups(Net(), 0.1, factors={"weight": factor})
    for wd in (-1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="expected a finite number of at least 0"):
            param_groups(Net(), wd)


class Others(nn.Module):
    """One of every other kind."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.pos_embed = nn.Parameter(torch.zeros(1, 4))
        self.cls_token = nn.Parameter(torch.zeros(1, 4))
        self.depthwise = nn.Conv2d(4, 8, 3, groups=4)
        self.grouped = nn.Conv2d(4, 8, 3, groups=2)
        self.act = LearnableFakeQuantize()
        self.linear = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.quantized = nn.Linear(4, 4)
        nn.utils.parametrize.register_parametrization(self.quantized, "weight", LSQ())


class LearnableFakeQuantize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class LSQ(LearnableFakeQuantize):
    """As a weight's parametrization."""


def test_kinds_of_parameters() -> None:
    assert parameter_kinds(Others()) == {
        "pos_embed": "embedding",
        "cls_token": "embedding",
        "table.weight": "embedding",
        "depthwise.weight": "depthwise",
        "depthwise.bias": "bias",
        "grouped.weight": "weight",
        "grouped.bias": "bias",
        "act.scale": "quantizer",
        "linear.bias": "bias",
        "linear.parametrizations.weight.original0": "weight",
        "linear.parametrizations.weight.original1": "weight",
        "quantized.bias": "bias",
        "quantized.parametrizations.weight.original": "weight",
        "quantized.parametrizations.weight.0.scale": "quantizer",
    }


def test_quantizers_are_never_decayed_and_embeddings_by_a_switch() -> None:
    everything = coefficients(param_groups(Others(), 0.1, factors={".": 1.0}))
    assert {n for n, wd in everything.items() if not wd} == {
        "act.scale",
        "quantized.parametrizations.weight.0.scale",
    }
    without = coefficients(param_groups(Others(), 0.1, decay_embedding=False))
    assert without["table.weight"] == without["pos_embed"] == without["cls_token"] == 0
    depthwise = coefficients(param_groups(Others(), 0.1, factors={".": 0.0, "@depthwise": 1.0}))
    assert [n for n, wd in depthwise.items() if wd] == ["depthwise.weight"]


def test_rates_of_their_own_make_groups_of_their_own() -> None:
    groups = param_groups(Net(), 0.1, lr=0.5, lr_factors={"conv.bias": 2.0, "conv.weight": 0.1})
    rates = {n: g["lr"] for g in groups for n, _ in g["params"]}
    assert rates["conv.bias"] == 1.0
    assert rates["conv.weight"] == pytest.approx(0.05)
    assert rates["bn.weight"] == 0.5
    assert len(groups) == 4


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)
        self.plain = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn(self.conv(x)) + self.plain(x)
        return self.head(x.mean((2, 3)))


class Branching(Residual):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 0 else x


def corrected(model: nn.Module, asked: str) -> set[str]:
    groups = param_groups(model, 0.1, lr_corrected=asked)
    return {n for g in groups if g["lr_corrected"] for n, _ in g["params"]}


def test_correction_is_of_weights_followed_by_normalisation() -> None:
    assert corrected(Residual(), "auto") == {"conv.weight"}
    assert corrected(Branching(), "head") == {"head.weight", "head.bias"}
    with pytest.raises(UsageError, match="torch.fx cannot trace Branching .*; name the weights"):
        corrected(Branching(), "auto")
    with pytest.raises(UsageError, match="no layer is followed by normalisation"):
        corrected(nn.Sequential(nn.Linear(2, 2)), "auto")
    with pytest.raises(UsageError, match="--lr-corrected 'cnv' matches no parameter"):
        corrected(Residual(), "cnv")


@pytest.mark.parametrize("asked", ["@norm", "bias$", "@bias"])
def test_correction_of_what_is_not_decayed_is_refused(asked: str) -> None:
    words = f"--lr-corrected '{re.escape(asked)}' matches only parameters that are not decayed"
    with pytest.raises(UsageError, match=words):
        corrected(Residual(), asked)
    assert param_groups(Residual(), 0.0, lr_corrected=asked)
    assert param_groups(Residual(), 0.1, lr_corrected=asked, decay_bias=True, decay_norm=True)
    with pytest.raises(UsageError, match="--lr-corrected 'auto' matches only"):
        param_groups(Residual(), 0.1, lr_corrected="auto", no_decay=["^conv"])


@pytest.mark.parametrize(
    "options", [{"no_decay": [""]}, {"factors": {"": 2.0}}, {"lr_corrected": ""}]
)
def test_an_empty_pattern_is_refused(options: dict) -> None:
    with pytest.raises(UsageError, match="'': an empty pattern would match every parameter"):
        param_groups(Residual(), 0.1, **options)
