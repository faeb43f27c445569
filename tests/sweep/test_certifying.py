"""Certificates in the report of a sweep: made through the int8 backend, kept, shown, explained."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwd.registry import RENDERERS
from qwd.report.load import load_report
from qwd.report.render import text
from qwd.report.verdict import Certifier
from qwd.report.verdict.figures import Contrast
from qwd.sweep import session
from qwd.sweep.session import sweep
from tests.sweep.small import Here, asked, resumed

WITH_NORM: dict[str, Any] = {
    "model": "small_cnn",
    "scheme": ["ao-static"],
    "wd": [1e-5, 3e-2, 6e-2],
    "seeds": [3, 4],
    "batch_size": 32,
    "epochs": 2,
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of networks with BatchNorm, whose decays differ in scale."""
    folder = tmp_path_factory.mktemp("certified") / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "executor_called", lambda name, tasks: ("here", Here()))
        sweep(asked(**WITH_NORM), out=folder)
    return folder


def contrasts(folder: Path) -> tuple[Contrast, ...]:
    found = load_report(folder).verdict
    assert found is not None
    return found.settings[0].contrasts


def test_every_decay_has_the_certificate_of_its_first_seed(networks: Path) -> None:
    for contrast in contrasts(networks):
        (one,) = contrast.certificates
        assert contrast.uncertified is None
        assert (one.scheme, one.seed, one.images) == ("ao-static", 3, 360)
        assert one.rescaled > 0
        assert one.rescaled + one.unchanged + len(one.skipped) == 3
        assert one.changed <= 1  # 4 in 10,000, of 360


def test_the_scale_is_that_of_the_stored_weights(networks: Path) -> None:
    """The layers that are rescaled, recounted from the files."""
    for contrast in contrasts(networks):
        cells = [networks / "cells" / f"wd{wd}-s3" for wd in ("1e-5", contrast.arm.name[3:])]
        below, above = (load_file(cell / "model.safetensors") for cell in cells)
        layers = [name for name in below if name.startswith("conv") and name.endswith("weight")]
        ratios = torch.stack([above[n].norm() / below[n].norm() for n in layers])
        (one,) = contrast.certificates
        assert one.rescaled == int((ratios.log2().round() != 0).sum())


@pytest.mark.parametrize("name", ["text", "md", "html"])
def test_it_is_shown(name: str, networks: Path) -> None:
    report = load_report(networks)
    page = text.render(report, width=400) if name == "text" else RENDERERS.get(name)(report)
    (certificate,) = contrasts(networks)[-1].certificates
    assert f"{certificate.changed} of 360 ao-static predictions change where" in page
    assert "Certificate (wd 0.06, seed 3): " in page


def test_it_is_not_made_twice_and_again_where_weights_changed(
    networks: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(networks, tmp_path / "s"))
    before = contrasts(folder)
    made: list[int | None] = []
    against = Certifier.against

    def counted(self: Certifier, other: Any, seed: int | None = None):
        made.append(seed)
        return against(self, other, seed)

    monkeypatch.setattr(Certifier, "against", counted)
    resumed(folder)
    assert (made, contrasts(folder)) == ([], before)
    path = folder / "cells" / "wd0.06-s3" / "model.safetensors"
    save_file({n: t * 1.0 if "conv" not in n else t / 16 for n, t in load_file(path).items()}, path)
    resumed(folder)
    assert made == [3]
    (folder / "certificates.json").write_text("{")
    resumed(folder)
    assert made == [3, 3, 3]
    assert len(json.loads((folder / "certificates.json").read_text())) == 2


def test_without_batchnorm_or_int8_the_reason_is_stated(finished: Path, tmp_path: Path) -> None:
    (contrast,) = contrasts(finished)
    assert contrast.certificates == ()
    assert contrast.uncertified == "ao-static was not reported"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "executor_called", lambda name, tasks: ("here", Here()))
        sweep(asked(model="vit", scheme=["ao-static"], seeds=1), out=tmp_path / "s")
    (contrast,) = contrasts(tmp_path / "s")
    assert contrast.uncertified == "no layer stands directly before a BatchNorm"
    page = text.render(load_report(tmp_path / "s"), width=400)
    assert "No certificate at wd 0: no layer stands directly before a BatchNorm." in page


def test_weights_that_cannot_be_read_leave_a_reason(
    networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwd.report.verdict import verdict
    from qwd.sweep.certifying import with_certificates
    from qwd.sweep.reading import read_design

    folder = Path(shutil.copytree(networks, tmp_path / "s"))
    (folder / "certificates.json").unlink()
    (folder / "cells" / "wd0.03-s3" / "model.safetensors").write_bytes(b"none")
    models = load_report(folder).models
    found = with_certificates(verdict(models, 1e-5), models, read_design(folder), folder)
    broken, fine = found.settings[0].contrasts
    assert "model.safetensors" in (broken.uncertified or "")
    assert len(fine.certificates) == 1
