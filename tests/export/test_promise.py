"""The report's accuracy: stored, where the report is about this very network, else measured."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import qwd
from qwd.errors import VerificationError
from qwd.export.promise import Promise, promise
from qwd.registry import RENDERERS
from qwd.report.entry import report
from qwd.report.subject import Subjects
from qwd.train.session import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(qwd.TrainConfig(model="mlp", epochs=1, threads=1), out=folder)
    made = report(folder, schemes=["affine-tensor"])
    (folder / "report.json").write_text(RENDERERS.get("json")(made))
    return folder


def promised(run: Path, scheme: str = "affine-tensor", **changes: Any) -> Promise:
    subject = Subjects({}).open(run)
    assert subject.data is not None
    stored = json.loads((run / "report.json").read_text())["models"][0]
    given = {
        "float_accuracy": stored["float_accuracy"],
        "measured": 0.123,
        "usual_calibration": True,
        "same_runtime": True,
        **changes,
    }
    return promise(subject, subject.data, scheme, **given)


def test_a_report_of_the_same_weights_and_images_counts(run: Path) -> None:
    found = promised(run)
    stored = json.loads((run / "report.json").read_text())["models"][0]
    assert found.accuracy == stored["schemes"]["affine-tensor"]["accuracy"]
    assert (found.source, found.note) == ("report.json", None)


def test_a_scheme_that_is_not_in_the_report_is_measured(run: Path) -> None:
    found = promised(run, "affine-channel")
    assert (found.accuracy, found.source, found.note) == (0.123, "measured now", None)


def test_another_calibration_is_measured(run: Path) -> None:
    assert promised(run, usual_calibration=False).source == "measured now"


STALE: dict[str, Callable[[dict[str, Any]], object]] = {
    "other images": lambda model: model["data"].update(sha256="0" * 64),
    "other normalisation or split": lambda model: model["data"].update(n=359),
    "no images": lambda model: model.update(data=None),
    "other weights": lambda model: model["tensors"][0].update(a=-9.0),
    "fewer weights": lambda model: model["tensors"].pop(),
    "another float accuracy": lambda model: model.update(float_accuracy=0.01),
}


@pytest.mark.parametrize("what", STALE)
def test_a_report_about_something_else_does_not_count(run: Path, what: str) -> None:
    file = run / "report.json"
    before = file.read_text()
    whole = json.loads(before)
    float_accuracy = whole["models"][0]["float_accuracy"]
    try:
        STALE[what](whole["models"][0])
        file.write_text(json.dumps(whole))
        found = promised(run, float_accuracy=float_accuracy)
    finally:
        file.write_text(before)
    assert (found.accuracy, found.source) == (0.123, "measured now")
    assert found.note is not None
    assert "report.json is about other weights or images" in found.note


def test_a_damaged_report_is_said_and_does_not_count(run: Path) -> None:
    file = run / "report.json"
    before = file.read_text()
    try:
        file.write_text("{")
        subject = Subjects({}).open(run)
        assert subject.data is not None
        found = promise(
            subject,
            subject.data,
            "affine-tensor",
            float_accuracy=0.5,
            measured=0.4,
            usual_calibration=True,
            same_runtime=True,
        )
    finally:
        file.write_text(before)
    assert (found.accuracy, found.source) == (0.4, "measured now")
    assert found.note is not None
    assert "report.json: not a report" in found.note


def test_no_report_is_no_reason_to_say_anything(run: Path, tmp_path: Path) -> None:
    subject = replace(Subjects({}).open(run), path=str(tmp_path))
    assert subject.data is not None
    found = promise(
        subject,
        subject.data,
        "affine-tensor",
        float_accuracy=1,
        measured=0.4,
        usual_calibration=True,
        same_runtime=True,
    )
    assert (found.source, found.note) == ("measured now", None)


def test_a_tenth_of_a_point_passes_and_more_does_not() -> None:
    made = Promise(scheme="onnx-static", accuracy=0.9, source="report.json")
    assert made.check(0.901) == pytest.approx(0.1)
    assert made.check(0.899) == pytest.approx(-0.1)
    assert made.check(0.9) == 0
    for accuracy in (0.9011, 0.8989, 1.0):
        with pytest.raises(VerificationError, match="nothing was written: the file's accuracy"):
            made.check(accuracy)
    with pytest.raises(VerificationError, match="`qwd quantize-report --scheme onnx-static`"):
        made.check(0.5)
    with pytest.raises(VerificationError) as caught:
        replace(made, source="measured now").check(0.5)
    assert "quantize-report" not in str(caught.value)


def test_another_runtime_may_differ_in_one_image(run: Path) -> None:
    n = json.loads((run / "report.json").read_text())["models"][0]["data"]["n"]
    assert promised(run).tolerance_pp == 0.1
    found = promised(run, same_runtime=False)
    assert found.tolerance_pp == pytest.approx(100 / n)
    found.check(found.accuracy - 1 / n)
    with pytest.raises(VerificationError, match="more than 0.28 pp apart"):
        found.check(found.accuracy - 2 / n)
