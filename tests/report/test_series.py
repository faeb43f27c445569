"""A training's checkpoints: which ones they are, in what order, and how their weights move."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qwd.config import TrainConfig
from qwd.errors import InputError
from qwd.report.comparison import compare_models
from qwd.report.entry import report
from qwd.report.figures import ModelReport, Report
from qwd.report.load import read_as, validate
from qwd.report.render import csv as as_csv
from qwd.report.render import html, markdown, text
from qwd.report.render.trajectory import spaced
from qwd.report.series import find_series, in_order
from qwd.train.session import train

from .builders import figures, summary, tensor, weights_only


def checkpoint(path: str, shape: tuple[int, ...] = (8, 4), scale: float = 1.0) -> ModelReport:
    made = weights_only(Path(path).name)
    weight = tensor("fc.weight", folded=None, figures=figures(shape=shape, range=scale))
    return replace(made, path=path, tensors=(weight,), summary=summary(range=scale))


def steps(*paths: str) -> tuple[int, ...] | None:
    found = find_series([checkpoint(path) for path in paths])
    return found[0].steps if found else None


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (("c_10.pth", "c_9.pth", "c_1.pth"), (1, 9, 10)),
        (("a/1/net.pt", "a/2/net.pt", "a/3/net.pt"), (1, 2, 3)),
        (("v2/e01.pt", "v2/e02.pt", "v2/e10.pt"), (1, 2, 10)),
        # The first number that no two share; what is no whole number is none.
        (("e1-loss0.5.pt", "e2-loss0.25.pt", "e3-loss0.125.pt"), (1, 2, 3)),
        (("e0-s10.pt", "e0-s20.pt", "e1-s30.pt"), None),
        (("e0-step10.pt", "e0-step20.pt", "e1-step30.pt"), (10, 20, 30)),
        # Arms of a study are not a training.
        (("wd1e-3.pt", "wd1e-4.pt", "wd1e-5.pt"), None),
        (("net-wd3.pt", "net-wd4.pt", "net-wd5.pt"), None),
        (("net-seed0.pt", "net-seed1.pt", "net-seed2.pt"), None),
        (("runs1e-4.pt", "runs1e-5.pt", "runs1e-6.pt"), None),
        (("c_1.pt", "c_01.pt", "c_2.pt"), None),
        (("c_1.pt", "c_2.pt"), None),
        (("a.pt", "b.pt", "c.pt"), None),
        (tuple(f"c{i}{'0' * 15}.pt" for i in (1, 2, 3)), None),
    ],
)
def test_steps_are_read_off_the_names(paths: tuple[str, ...], expected: tuple[int, ...] | None):
    assert steps(*paths) == expected


def test_several_runs_are_several_series():
    paths = [f"wd{wd}/e{epoch}.pt" for epoch in (1, 2, 10) for wd in (3, 4)]
    models = [replace(checkpoint(path), name=path) for path in paths]
    found = find_series(models)
    assert [(each.name, each.steps) for each in found] == [
        ("wd3/e*.pt", (1, 2, 10)),
        ("wd4/e*.pt", (1, 2, 10)),
    ]
    assert find_series([*models, replace(checkpoint("wd5/e1.pt"), name="alone")]) == ()


def test_other_shapes_are_other_networks():
    models = [checkpoint(f"net{i}.pt", shape=(i, 4)) for i in (18, 34, 50)]
    assert find_series(models) == ()


def test_a_series_stands_together_in_its_order():
    models = [checkpoint(name) for name in ("e10.pt", "best.pt", "e2.pt", "e1.pt")]
    found = find_series(models)
    assert found[0].name == "e*.pt"
    assert [m.name for m in in_order(models, found)] == ["e1.pt", "e2.pt", "e10.pt", "best.pt"]


def made(count: int, *others: ModelReport) -> Report:
    models = [checkpoint(f"e{i}.pt", scale=1 + i / 4) for i in range(count)] + list(others)
    return Report(models=tuple(models), comparison=compare_models(models))


def test_the_page_of_a_series():
    page = text.render(made(3), width=100)
    assert page.startswith("e2.pt\n")  # the last one alone in detail
    trajectory = page[page.index("Trajectory of e*.pt") :].splitlines()
    assert trajectory[4].split()[:3] == ["step", "range,", "raw"]
    assert [line.split()[:2] for line in trajectory[6:9]] == [
        ["0", "1.000"],
        ["1", "1.250"],
        ["2", "1.500"],
    ]
    by_tensor = [line.split() for line in trajectory if "fc.weight" in line]
    assert by_tensor == [["fc.weight", "range", "1.000", "1.250", "1.500"]]
    assert "e2.pt against e0.pt: the raw range is larger (+50.00 %" in page
    assert page.count(" against ") == 1
    assert "seeds" not in page


def test_long_series_are_thinned_in_tables_for_readers():
    page = text.render(made(50), width=100)
    assert "20 of 50 checkpoints are shown" in page
    assert [
        f"step {word.split()[0]}" for word in page.split("as deployed")[1].split("step ")[1:6]
    ] == ["step 0", "step 12", "step 24", "step 37", "step 49"]
    assert spaced(range(3), 5) == [0, 1, 2]
    assert spaced(range(11), 3) == [0, 5, 10]


def test_warnings_of_checkpoints_without_details_are_kept():
    broken = replace(checkpoint("e0.pt"), warnings=("2 NaN", "weight figures only"))
    models = [broken, checkpoint("e1.pt"), checkpoint("e2.pt")]
    page = text.render(Report(models=tuple(models), comparison=compare_models(models)))
    assert page.count("weight figures only") == 1
    assert "warning: e0.pt: 2 NaN" in page


def test_the_last_of_a_series_stands_beside_other_checkpoints():
    page = text.render(made(3, checkpoint("best.pt", scale=2.0)), width=100)
    side = page[page.index("Side by side") :]
    assert side.splitlines()[2].split() == ["e2.pt", "best.pt"]
    assert "best.pt against e2.pt" in side


def test_other_formats_have_the_series():
    report_made = made(4)
    for page in (markdown.render(report_made), html.render(report_made)):
        assert "Trajectory of e" in page
    rows = list(csv.DictReader(io.StringIO(as_csv.render(report_made))))
    assert [(row["step"], row["range"]) for row in rows][-1] == ("3", "1.75")
    value = json.loads(json.dumps(report_made.to_dict()))
    validate(value)
    assert read_as(Report, value) == report_made
    assert "step" not in as_csv.render(made(2)).splitlines()[0].split(",")


def test_the_kept_epochs_of_a_run_are_what_its_metrics_say(tmp_path: Path):
    config = TrainConfig(epochs=3, batch_size=256, wd=1e-2, keep_every=1, threads=1)
    run = train(config, out=tmp_path / "run")
    found = report(run.path / "epochs")
    assert found.comparison is not None
    assert [each.steps for each in found.comparison.series] == [(1, 2, 3)]
    assert [m.summary.folded_range for m in found.models] == [
        pytest.approx(row["folded_range"], rel=1e-6) for row in run.metrics
    ]
    last, trained = (
        load_file(path)
        for path in (run.path / "epochs/epoch0003.safetensors", run.path / "model.safetensors")
    )
    assert all(torch.equal(last[name], trained[name]) for name in trained)


def test_the_folder_of_a_sweep_is_its_finished_cells(tmp_path: Path):
    for seed in (0, 1):
        config = TrainConfig(model="mlp", epochs=1, seed=seed, threads=1)
        train(config, out=tmp_path / "cells" / f"s{seed}")
    shutil.copytree(tmp_path / "cells" / "s0", tmp_path / "cells" / "s2")
    (tmp_path / "cells" / "s2" / "model.safetensors").unlink()
    (tmp_path / "sweep.yaml").write_text("{}")
    found = report(tmp_path, schemes="affine-tensor")
    assert [model.name for model in found.models] == ["s0", "s1"]
    assert all(model.schemes for model in found.models)


def test_a_folder_of_checkpoints(tmp_path: Path):
    torch.manual_seed(0)
    w = torch.randn(8, 4)
    for epoch in (1, 2, 10):
        folder = tmp_path / f"checkpoint-{epoch}"
        folder.mkdir()
        torch.save({"fc.weight": w * epoch}, folder / "pytorch_model.bin")
        torch.save({"state": {0: {"exp_avg": w}}}, folder / "optimizer.pt")
    found = report(tmp_path)
    assert [m.name for m in found.models] == ["checkpoint-1", "checkpoint-2", "checkpoint-10"]
    assert found.comparison is not None
    (series,) = found.comparison.series
    assert series.steps == (1, 2, 10)
    first, *_, last = (m.summary.range for m in found.models)
    assert first is not None
    assert last == pytest.approx(10 * first)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is no run folder, and holds no checkpoint"):
        report(tmp_path / "empty")
