"""A quantizer broken on purpose does not get past the limits of `make bench-compare`."""

from pathlib import Path

import pytest
import torch

import qwd
from qwd.quantize import arithmetic
from qwd.report.compare import compare
from qwd.report.entry import report
from qwd.report.figures import Report
from qwd.report.limits import parse_limit
from qwd.train.session import train

WEIGHTS_ALONE = ("minmax-tensor", "affine-tensor", "affine-channel")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = qwd.TrainConfig(epochs=6, threads=1)
    return train(config, out=tmp_path_factory.mktemp("runs") / "run").path


LIMITS = [
    *(f"schemes.{name}.drop_pp:+2pp" for name in WEIGHTS_ALONE),
    *(f"schemes.{name}.weights_sqnr_db:-2" for name in WEIGHTS_ALONE),
]


def broken_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds down in place of to nearest."""
    monkeypatch.setattr(torch.Tensor, "round", torch.Tensor.floor)


def broken_clamp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips every code to the lower half."""
    codes = arithmetic.Grid.codes

    def clipped(self: arithmetic.Grid, w: torch.Tensor) -> torch.Tensor:
        return codes(self, w).clamp(max=127 if self.kind == "minmax" else 0)

    monkeypatch.setattr(arithmetic.Grid, "codes", clipped)


def broken_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of (b - a) / 127."""
    step = arithmetic._step
    monkeypatch.setattr(arithmetic, "_step", lambda a, b, levels: step(a, b, levels) * 255 / 127)


@pytest.mark.parametrize("breaks", [broken_rounding, broken_clamp, broken_scale])
def test_a_broken_quantizer_fails_the_comparison(trained: Path, monkeypatch, breaks) -> None:
    """The limits of `make bench-compare`, on the same run before and after the break."""

    def reported() -> Report:
        return report(trained, schemes=WEIGHTS_ALONE)

    limits = [parse_limit(text) for text in LIMITS]
    base = reported()
    assert compare(base, reported(), limits).exit_code == 0
    breaks(monkeypatch)
    compared = compare(base, reported(), limits)
    assert compared.exit_code == 1
    assert any("sqnr_db" in line for line in compared.exceeded)


def test_the_limits_here_are_those_of_the_makefile() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert all(limit in makefile for limit in LIMITS)
