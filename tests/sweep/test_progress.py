"""What is said of a cell when it ends: of a quantization-aware one, the scheme it is for."""

from pathlib import Path

import pytest
from qwd_cli.sweep_progress import SweepProgress

from qwd.report.load import load_report
from qwd.sweep.session import sweep
from tests.sweep.small import Here, asked


def test_a_quantization_aware_cell_is_shown_under_its_own_scheme(
    tmp_path: Path, here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    """At 2 bits that is far from what ao-static, at 8, gives the same weights."""
    given = asked(qat=True, bits="2", wd=1e-4, seeds=1, lr=0.05, scheme=["ao-static"])
    sweep(given, out=tmp_path / "s", watcher=SweepProgress())
    (model,) = load_report(tmp_path / "s").models
    assert {scheme.qat for scheme in model.schemes.values()} == {True, False}
    own, other = (
        next(f"{100 * s.accuracy:.2f} %" for s in model.schemes.values() if s.qat is qat)
        for qat in (True, False)
    )
    assert own != other
    said = capsys.readouterr().err
    assert f"w2 qat {own}" in said
    assert other not in said.partition("w2 qat")[2]
