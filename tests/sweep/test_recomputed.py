"""The verdict of a sweep, computed again from the files of its cells with nothing of qwd."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy import stats

from qwd.sweep import session
from qwd.sweep.session import sweep
from tests.sweep.small import Here, asked

WDS, SEEDS = ("1e-4", "0.1", "0.2"), range(8)
TESTS = 6
"""three figures, two decays against the reference"""
PRIMARY = ("range", "folded_range", "int8_accuracy")
MARGINS = {"range": 5.0, "folded_range": 5.0, "int8_accuracy": 0.5}
STEPS = {"range": 100 * 2.0**-23, "folded_range": 100 * 2.0**-23, "int8_accuracy": 100 / 360}

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three decays with eight seeds: enough for tests of six figures."""
    made = tmp_path_factory.mktemp("recomputed") / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "executor_called", lambda name, tasks: ("here", Here()))
        sweep(asked(wd=",".join(WDS), seeds=len(SEEDS), scheme=["ao-static"]), out=made)
    return made


@pytest.fixture(scope="module")
def verdict(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())["verdict"]


def cell(folder: Path, wd: str, seed: int) -> dict[str, Any]:
    """What the report of one cell says of its model."""
    content = json.loads((folder / "cells" / f"wd{wd}-s{seed}" / "report.json").read_text())
    return content["models"][0]


def mean_range(tensors: list[dict[str, Any]]) -> float:
    """b - a, weighted by elements."""
    ranges = [tensor["b"] - tensor["a"] for tensor in tensors]
    return float(np.average(ranges, weights=[tensor["numel"] for tensor in tensors]))


def figures(folder: Path, wd: str) -> dict[str, Array]:
    """The primary figures of one decay, by seed."""
    models = [cell(folder, wd, seed) for seed in SEEDS]
    folded = [[tensor["folded"] or tensor for tensor in model["tensors"]] for model in models]
    return {
        "range": np.array([mean_range(model["tensors"]) for model in models]),
        "folded_range": np.array([mean_range(tensors) for tensors in folded]),
        "int8_accuracy": np.array([m["schemes"]["ao-static"]["accuracy"] for m in models]),
    }


def sign_flip(changes: Array) -> float:
    sums = [abs(np.dot(s, changes)) for s in itertools.product((-1, 1), repeat=len(changes))]
    return float(np.mean(np.array(sums) >= abs(changes.sum()) * (1 - 1e-9) - 1e-12))


def holm(values: list[float]) -> list[float]:
    order = np.argsort(values)
    adjusted = np.maximum.accumulate([(TESTS - i) * values[k] for i, k in enumerate(order)])
    found = np.empty(len(values))
    found[order] = np.minimum(adjusted, 1)
    return found.tolist()


def recomputed(folder: Path) -> list[dict[str, Any]]:
    """Every primary change, in the order of the verdict."""
    reference, made = figures(folder, WDS[0]), []
    for wd, metric in itertools.product(WDS[1:], PRIMARY):
        a, b = reference[metric], figures(folder, wd)[metric]
        relative = metric != "int8_accuracy"
        changes = 100 * (b / a - 1) if relative else 100 * (b - a)
        n, margin = len(changes), MARGINS[metric]
        error = max(changes.std(ddof=1), STEPS[metric] / np.sqrt(6)) / np.sqrt(n)
        t = stats.t(n - 1)
        mean = changes.mean()
        made.append(
            {
                "mean": mean,
                "low": mean - t.ppf(0.975) * error,
                "high": mean + t.ppf(0.975) * error,
                "p": sign_flip(np.log(b / a) if relative else changes),
                "q": max(t.sf((mean + margin) / error), t.cdf((mean - margin) / error)),
                "margin": margin,
            }
        )
    for name in ("p", "q"):
        for change, adjusted in zip(made, holm([c[name] for c in made]), strict=True):
            change[f"{name}_holm"] = adjusted
    return made


def test_changes_intervals_and_tests(folder: Path, verdict: dict[str, Any]) -> None:
    (setting,) = verdict["settings"]
    assert setting["reference"]["wd"] == 1e-4
    assert (verdict["family_size"], verdict["seeds_for_a_test"]) == (TESTS, 8)
    found = [c for one in setting["contrasts"] for c in one["changes"] if c["primary"]]
    assert [change["metric"] for change in found] == [*PRIMARY, *PRIMARY]
    for change, expected in zip(found, recomputed(folder), strict=True):
        for name in ("mean", "low", "high"):
            assert change[name] == pytest.approx(expected[name], rel=1e-6, abs=1e-9)
        assert change["p"] == pytest.approx(expected["p"])
        assert change["p_holm"] == pytest.approx(expected["p_holm"])
        assert change["p_equivalence"] == pytest.approx(expected["q"], rel=1e-4, abs=1e-12)
        assert change["p_equivalence_holm"] == pytest.approx(
            expected["q_holm"], rel=1e-4, abs=1e-12
        )


def test_words(folder: Path, verdict: dict[str, Any]) -> None:
    found = [
        change["word"]
        for one in verdict["settings"][0]["contrasts"]
        for change in one["changes"]
        if change["primary"]
    ]
    names = [("less compact", "more compact"), ("less compact", "more compact")]
    names = [*names, ("better", "worse")] * 2
    expected = []
    for change, (higher, lower) in zip(recomputed(folder), names, strict=True):
        within = max(abs(change["low"]), abs(change["high"])) < change["margin"]
        if change["q_holm"] <= 0.05 and within:
            expected.append("equivalent")
        elif change["p_holm"] <= 0.05 and (change["low"] > 0 or change["high"] < 0):
            expected.append(higher if change["mean"] > 0 else lower)
        else:
            expected.append("undecided")
    assert found == expected
    assert found[0] == "more compact"  # a dose of 1 is no small matter


def test_scale_and_shape_from_the_weights_themselves(folder: Path, verdict: dict[str, Any]) -> None:
    for wd, one in zip(WDS[1:], verdict["settings"][0]["contrasts"], strict=True):
        totals, scales, names = [], [], []
        for seed in SEEDS:
            a, b = (
                load_file(folder / "cells" / f"wd{name}-s{seed}" / "model.safetensors")
                for name in (WDS[0], wd)
            )
            names = [name for name, tensor in a.items() if tensor.ndim >= 2]
            weights = [a[name].size for name in names]
            ranges = [np.log(np.ptp(b[n]) / np.ptp(a[n])) for n in names]
            stds = [np.log(b[n].astype(float).std() / a[n].astype(float).std()) for n in names]
            totals.append(np.average(ranges, weights=weights))
            scales.append(np.average(stds, weights=weights))
            reported = {t["name"]: t["b"] - t["a"] for t in cell(folder, wd, seed)["tensors"]}
            assert reported == pytest.approx({name: float(np.ptp(b[name])) for name in names})
        raw = one["raw"]
        assert raw["tensors"] == len(names)
        assert raw["total"]["mean"] == pytest.approx(np.mean(totals), rel=1e-5)
        assert raw["scale"]["mean"] == pytest.approx(np.mean(scales), rel=1e-5)
        shape = np.mean(totals) - np.mean(scales)
        assert raw["shape"]["mean"] == pytest.approx(shape, rel=1e-4, abs=1e-6)
        assert raw["scale"]["mean"] < 0
