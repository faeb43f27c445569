"""Arms without an effect, and what the verdict claims of them."""

import json
from pathlib import Path

import pytest

from qwd.report.load import load_report
from qwd.report.verdict import certified, verdict
from qwd.sweep import begin, cells_of, read
from qwd.sweep.placebo import DOSE, alarms, with_arms
from qwd.sweep.reading import read_design
from qwd.sweep.session import sweep
from qwd.train.planning import planned_dose
from tests.sweep.small import Here, asked

IMAGES = 1257
"""training images of digits, the validation split taken off"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with a placebo, its arms among the cells."""
    folder = tmp_path_factory.mktemp("placebo") / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qwd.sweep.session.executor_called", lambda name, tasks: ("here", Here()))
        sweep(asked(wd="1e-3,1e-2", placebo=True), out=folder)
    return folder


def test_the_arms_are_a_faint_decay_no_decay_and_other_seeds(made: Path) -> None:
    cells = {cell.id: cell for cell in cells_of(read_design(made))}
    arms = {name: cell for name, cell in cells.items() if cell.role}
    assert {cell.role for cell in arms.values()} == {"none", "other", "placebo"}
    assert {n for n in arms if n.startswith("other")} == {
        "other-wd1e-3-s1000",
        "other-wd1e-3-s1001",
    }
    assert {cell.config.wd for cell in arms.values() if cell.role == "none"} == {0.0}
    for cell in arms.values():
        if cell.role == "placebo":
            assert planned_dose(cell.config, IMAGES) == pytest.approx(DOSE, rel=0.01)
    assert all((made / "cells" / name / "report.json").is_file() for name in arms)


def test_the_arms_stay_out_of_the_verdict_on_the_grid(made: Path) -> None:
    report = load_report(made)
    assert {m.name for m in report.models} == {"wd1e-3-s0", "wd0.01-s0", "wd1e-3-s1", "wd0.01-s1"}
    assert report.verdict == certified(
        verdict(report.models, reference=1e-3),
        "mlp on digits",
        "wd 0.01",
        [],
        "ao-static was not reported",
    )


def test_the_same_verdict_judges_the_arms(made: Path) -> None:
    found = load_report(made / "placebo.json")
    assert found.verdict is not None
    faint, other = found.verdict.settings
    assert [faint.reference.wd, other.reference.wd] == [0.0, 1e-3]
    assert faint.contrasts[0].arm.dose == pytest.approx(DOSE, rel=0.01)
    assert other.contrasts[0].arm.seeds == (0, 1)
    grid = load_report(made).verdict
    assert grid is not None
    assert found.verdict.family_size == grid.family_size == 3
    assert found.verdict.seeds_for_a_test == grid.seeds_for_a_test == 7
    models = {model.name: model for model in found.models}
    (change,) = [c for c in other.contrasts[0].changes if c.metric == "float_accuracy"]
    pairs = [(models[f"wd1e-3-s{s}"], models[f"other-wd1e-3-s{s + 1000}"]) for s in (0, 1)]
    changes = [100 * ((b.float_accuracy or 0) - (a.float_accuracy or 0)) for a, b in pairs]
    assert change.mean == pytest.approx(sum(changes) / 2)
    # Without an accuracy in int8 there are two primary figures an arm.
    assert alarms(found.verdict) == (0, 4)


def test_claims_of_a_difference_are_counted(made: Path) -> None:
    content = json.loads((made / "placebo.json").read_text())
    change = content["verdict"]["settings"][0]["contrasts"][0]["changes"][0]
    assert change["primary"]
    change["word"] = "more compact"
    path = made.parent / "changed.json"
    path.write_text(json.dumps(content))
    found = load_report(path).verdict
    assert found is not None
    assert alarms(found) == (1, 4)


def test_no_decay_in_the_grid_serves_the_placebo() -> None:
    design, notes = with_arms(begin(asked(wd="0,1e-2", momentum="0.5,0.9", placebo=True)))
    assert notes == ()
    assert [arm.role for arm in design.arms] == ["placebo", "other"] * 2
    assert {arm.values["momentum"] for arm in design.arms} == {0.5, 0.9}
    again, _ = with_arms(design)
    assert again == design


def test_a_form_without_a_dose_has_other_seeds_alone() -> None:
    design, notes = with_arms(begin(read({}, {}, {"form": "l1", "placebo": True})))
    assert notes == ("--placebo: l1 under sgd has no dose",)
    assert [arm.role for arm in design.arms] == ["other"]
