"""The audit of a run's decay: read strictly, stored whole, and shown in a few rows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from qwd import decay
from qwd.errors import InputError
from qwd.report.figures import DecayAudit, DecayedParameter
from qwd.report.load import load_audit, validate
from qwd.report.render.text import render
from tests.report.builders import model, report


def stored(folder: Path) -> dict:
    """A real audit as a run folder has it."""
    network = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(decay.param_groups(network, 1e-4), lr=0.1)
    decay.attach(optimizer, decay.forms.l2)
    content = decay.audit(network, optimizer).to_dict()
    (folder / "decay.json").write_text(json.dumps(content))
    return content


def test_what_a_run_stores_is_what_the_report_holds(tmp_path: Path) -> None:
    content = stored(tmp_path)
    audit = load_audit(tmp_path)
    assert audit is not None
    assert (audit.decayed, audit.share) == (18, content["share"])
    assert [p.name for p in audit.parameters if p.form] == ["0.weight", "2.weight"]
    whole = report(model(decay=audit)).to_dict()
    validate(json.loads(json.dumps(whole)))
    assert whole["models"][0]["decay"]["parameters"][0]["coefficient"] == 1e-4


def test_a_run_without_one_has_none(tmp_path: Path) -> None:
    assert load_audit(tmp_path) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: "[]",
        lambda content: "{",
        lambda content: json.dumps({**content, "share": 2}),
        lambda content: json.dumps({**content, "more": 1}),
        lambda content: json.dumps({k: v for k, v in content.items() if k != "parameters"}),
        lambda content: json.dumps({**content, "ulps": float("nan")}),
    ],
)
def test_anything_else_is_one_line(spoil, tmp_path: Path) -> None:
    content = stored(tmp_path)
    (tmp_path / "decay.json").write_text(spoil(content))
    with pytest.raises(InputError, match="decay.json") as caught:
        load_audit(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_text_has_a_row_for_each_kind_and_coefficient() -> None:
    def parameter(name: str, kind: str, form: str | None, wd: float) -> DecayedParameter:
        return DecayedParameter(
            name=name,
            kind=kind,
            numel=1000,
            form=form,
            coefficient=wd,
            lr=0.1,
            lost=wd / 10,
            ulps=1.0,
        )

    audit = DecayAudit(
        optimizer="SGD",
        decayed=3000,
        share=0.75,
        ulps=0.5,
        parameters=(
            parameter("a.weight", "weight", "l2", 1e-4),
            parameter("b.weight", "weight", "l2", 1e-4),
            parameter("c.weight", "weight", "l2", 5e-5),
            parameter("a.bias", "bias", None, 0.0),
        ),
        failures=(),
        warnings=(),
    )
    lines = [" ".join(line.split()) for line in render(report(model(decay=audit))).splitlines()]
    assert "l2 weight 1e-4 2 2,000 1.00e-05" in lines
    assert "l2 weight 5e-5 1 1,000 5.00e-06" in lines
    assert "not decayed bias - 1 1,000 0" in lines
    assert any("75.00 % of the parameters are decayed, verified by a step" in x for x in lines)
    failed = replace(audit, failures=("a.weight: missed",))
    assert "a.weight: missed" in render(report(model(decay=failed)))
