"""Words on weights: the cause that was planted is the cause that is named, with measured gains."""

import re

import pytest
import torch
from torch import Tensor

from qwd.quantize.channels import channel_figures
from qwd.quantize.statistics import weight_figures
from qwd.report.measuring import channel_report
from qwd.report.remedy_hints import Seen, excess, hints


def seen(w: Tensor, raw: Tensor | None = None, name: str = "conv.weight") -> Seen:
    of = weight_figures(w)
    raw_figures = of if raw is None else weight_figures(raw)
    channels = channel_report(channel_figures(w, 0, of=of))
    return Seen(name=name, kind="convolution", raw=raw_figures, deployed=of, channels=channels)


def said(w: Tensor, raw: Tensor | None = None, factor: Tensor | None = None, **more) -> list[str]:
    tensors, factors = {"conv.weight": w}, {"conv.weight": factor}
    options = {"eps": None, "variances": {}, **more}
    return list(hints([seen(w, raw)], tensors.__getitem__, factors.get, **options))


@pytest.fixture
def w() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(32, 16, 3, 3)


def test_normal_weights_need_nothing(w: Tensor):
    assert said(w) == []
    assert 0.9 < excess(weight_figures(w)) < 1.25


def test_single_outliers_are_clipped_where_that_gains():
    torch.manual_seed(0)
    w = torch.randn(256, 256, 3, 3)
    w[3, 2, 1, 1] = 40.0
    sentence = said(w)[0]
    assert "Single outliers: 1 element beyond 6 standard deviations, up to 40" in sentence
    found = re.search(r"clipping to \[(\S+), (\S+)\] gains (\S+) dB", sentence)
    assert found is not None
    lo, hi, gain = map(float, found.groups())
    scale = (hi - lo) / 255
    lost = lo + ((w.double().clamp(lo, hi) - lo) / scale).round() * scale - w
    sqnr = 10 * torch.log10(w.double().square().sum() / lost.square().sum())
    before = weight_figures(w).sqnr_db
    assert before is not None
    assert gain == pytest.approx(float(sqnr) - before, abs=0.06)


def test_clipping_is_not_named_where_it_loses(w: Tensor):
    w[3, 2, 1, 1] = 40.0
    assert "clipping" not in said(w)[0]


def test_a_folding_artefact_names_its_channel(w: Tensor):
    factor = torch.ones(32)
    factor[7] = 30
    sentence = said(w * factor.reshape(-1, 1, 1, 1), w, factor)[0]
    assert "A folding artefact: channel 7" in sentence
    assert "factor there is 30, 30.0 times the median" in sentence
    gain = re.search(r"a scale per channel gains (\S+) dB", sentence)
    assert gain is not None
    expected = channel_figures(w * factor.reshape(-1, 1, 1, 1)).gain_db
    assert float(gain[1]) == pytest.approx(expected, abs=0.051)


def test_uneven_channels_want_a_scale_each(w: Tensor):
    w[:2] *= 20
    sentence = said(w)[0]
    assert "Uneven channels: the widest has" in sentence
    assert "a scale per channel gains" in sentence


def test_heavy_tails(w: Tensor):
    torch.manual_seed(1)
    heavy = torch.distributions.StudentT(3.0).sample((64, 64, 3, 3)).clamp(-30, 30)
    sentence = said(heavy)[0]
    assert "Heavy tails: excess kurtosis" in sentence
    assert any("more decay alone" in line for line in said(heavy))


def test_few_far_elements_of_heavy_tails_are_no_single_outliers():
    torch.manual_seed(0)
    laplace = torch.distributions.Laplace(0.0, 1.0).sample((40, 200))
    cauchy = torch.distributions.Cauchy(0.0, 1.0).sample((64, 100))
    for w in (laplace, cauchy):
        assert 0 < (weight_figures(w).outliers["sigma>6"] or 0) <= 20
        assert "Heavy tails" in said(w)[0]


def test_dead_channels_are_to_be_cut(w: Tensor):
    w[:2] = 0
    w[3, 2, 1, 1] = 40.0
    assert "2 dead channels can be cut out" in said(w)[0]


def test_variances_near_eps_want_less_decay(w: Tensor):
    lines = said(w, eps=1e-5, variances={"conv.weight": 3e-6})
    assert any("down to 3e-06" in line and "less decay" in line for line in lines)
    assert said(w, eps=1e-5, variances={"conv.weight": 1.0}) == []


def test_scales_below_a_backends_smallest(w: Tensor):
    lines = said(w * 1e-3)
    assert any("32 channels of conv.weight have scales below 0.000244" in line for line in lines)


def test_constants_and_nothing_finite():
    assert said(torch.zeros(4, 4, 3, 3)) == []
    assert said(torch.full((4, 4), float("nan"))) == []
