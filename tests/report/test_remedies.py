"""Remedies: each recovers what it is for, and nothing is tried, or read, without need."""

import shlex
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from qwd.config import TrainConfig
from qwd.errors import UsageError
from qwd.quantize.schemes import Scheme, parse_scheme
from qwd.report.accuracies import calibration_batches
from qwd.report.entry import report
from qwd.report.remedies import MOST_TRIALS, Recipe, remedies
from qwd.report.studies import qat_command
from qwd.report.subject import Subject
from qwd.report.variants import Remedies, Remedy
from qwd.report.watching import Watcher
from qwd.train.data import Data, Split

from .traps import (
    Net,
    centred,
    data_of,
    with_an_outlier,
    with_biased_rounding,
    with_unequal_channels,
)


class Count(Watcher):
    def __init__(self) -> None:
        self.done = 0

    def evaluated(self) -> None:
        self.done += 1


class Counted(Split):
    """A split that counts how often it is read."""

    def __init__(self, split: Split):
        self.inner, self.labels, self.reads = split, split.labels, 0

    def batches(self, *args: Any, **options: Any) -> Any:
        self.reads += 1
        return self.inner.batches(*args, **options)

    def subset(self, positions: torch.Tensor) -> Split:
        return self.inner.subset(positions)

    def sha256(self) -> str:
        return self.inner.sha256()


def tried(
    network: nn.Module, scheme: str | Scheme = "ao-static", limit: float = 2, **options: Any
) -> Remedies:
    data: Data = options.pop("data", None) or data_of(network)
    watcher = options.pop("watcher", None) or Watcher()
    found, _ = remedies(
        network,
        parse_scheme(scheme) if isinstance(scheme, str) else scheme,
        data,
        calibration_batches(data, 256),
        limit_pp=limit,
        test_accuracy=1.0,
        device=torch.device("cpu"),
        watcher=watcher,
    )
    return found


def drops(found: Remedies) -> dict[str, float]:
    assert found.before.effect is not None
    entries = {e.name: e.effect.drop_pp for e in found.entries if e.effect is not None}
    return {"before": found.before.effect.drop_pp, **entries}


def test_an_outlier_is_recovered_by_channels_and_by_clipping() -> None:
    found = drops(tried(with_an_outlier()))
    assert found["before"] > 10
    assert found["per-channel scales"] < 1
    assert found["clipping (percentile)"] < 1
    coarse = drops(tried(with_an_outlier(size=4), "affine-tensor-w4-a8"))
    assert coarse["before"] > 50
    assert coarse["clipping (percentile)"] < 10
    assert coarse["per-channel scales"] < 10
    # The squared error of one weight is worth that of all others where it is not as far out.
    nearer = drops(tried(with_an_outlier(size=1), "affine-tensor-w4-a8"))
    assert nearer["before"] > 10
    assert nearer["clipping (mse)"] < 0.5 * nearer["before"]


def test_unequal_channels_are_recovered_by_channels() -> None:
    found = tried(with_unequal_channels())
    assert drops(found)["before"] > 10
    assert drops(found)["per-channel scales"] < 1
    assert found.chosen == "per-channel scales"
    (chosen,) = (entry for entry in found.entries if entry.name == found.chosen)
    assert chosen.scheme == "affine-channel-w8-a8"
    assert (found.before.scheme, found.before.backend) == ("ao-static", "ao")
    assert chosen.recovered_pp == pytest.approx(drops(found)["before"] - drops(found)[chosen.name])
    assert found.test_drop_pp is not None
    assert found.test_drop_pp < 1
    assert found.test_accuracy == pytest.approx(1 - found.test_drop_pp / 100)


def test_biased_rounding_is_recovered_by_bias_correction() -> None:
    found = drops(tried(with_biased_rounding(), "affine-tensor-w4-a8"))
    assert found["before"] > 40
    assert found["bias correction"] < 1


def test_within_the_limit_nothing_is_tried() -> None:
    network = centred(Net())
    data = data_of(network)
    data = replace(data, test=Counted(data.test))
    count = Count()
    found = tried(network, limit=0, data=data, watcher=count)
    assert (found.entries, found.chosen, found.test_accuracy) == ((), None, None)
    assert isinstance(data.test, Counted)
    assert (data.test.reads, count.done) == (0, 1)


def test_a_drop_that_equals_the_limit_is_within_it() -> None:
    network = with_unequal_channels()
    drop = drops(tried(network, limit=100))["before"]
    assert tried(network, limit=drop).entries == ()
    assert tried(network, limit=drop - 0.01).entries != ()


def test_the_test_split_is_read_once_for_the_chosen_one() -> None:
    network = with_an_outlier()
    data = data_of(network)
    data = replace(data, test=Counted(data.test))
    count = Count()
    found = tried(network, data=data, watcher=count)
    assert found.chosen is not None
    assert isinstance(data.test, Counted)
    assert data.test.reads == 1
    assert count.done == 1 + len(found.entries) <= MOST_TRIALS


def test_what_helped_is_tried_together_and_the_best_is_chosen() -> None:
    found = tried(with_an_outlier(), "affine-tensor-w4-a8")
    every = drops(found)
    *single, together = found.entries
    helped = {entry.name for entry in single if every[entry.name] < every["before"]}
    assert len(helped) >= 2
    parts = set(together.name.split(" + "))
    assert parts <= helped
    # Of two ways to clip there is room for one.
    assert helped - parts <= {"clipping (mse)", "clipping (percentile)"}
    assert every[together.name] < every["before"]
    assert found.chosen is not None
    assert every[found.chosen] == min(every.values())
    assert found.entries[-1].scheme == "affine-channel-w4-a8"


def test_what_the_scheme_has_is_not_tried_again() -> None:
    clipped = tried(with_biased_rounding(), "affine-channel-mse-w2-a8")
    singles = [entry.name for entry in clipped.entries if "+" not in entry.name]
    assert singles == ["bias correction"]
    per_channel = tried(with_biased_rounding(), "affine-channel-w2-a8", limit=0)
    assert "per-channel scales" not in [entry.name for entry in per_channel.entries]


def test_a_remedy_that_the_backend_refuses_is_said_and_the_others_go_on(monkeypatch) -> None:
    from qwd.quantize import ao
    from qwd.quantize.backend import NotQuantizableError

    check = ao.check

    def picky(scheme: Scheme) -> None:
        if scheme.granularity == "channel":
            raise NotQuantizableError("no kernels for channels here")
        check(scheme)

    monkeypatch.setattr(ao, "check", picky)
    network = with_an_outlier()
    (one,) = report(network, data_of(network), schemes=["ao-static"], fix=1).models
    assert one.remedies is not None
    refused, *others = one.remedies.entries
    assert (refused.effect, refused.failure) == (None, "no kernels for channels here")
    assert all(entry.effect is not None for entry in others)
    assert "per-channel scales" not in (one.remedies.chosen or "")
    page = " ".join(str(replace(one)).split())
    assert page
    text = report(network, data_of(network), schemes=["ao-static"], fix=1)
    assert "per-channel scales could not be tried: no kernels for channels here" in " ".join(
        str(text).split()
    )


def test_through_the_report_of_the_first_integer_scheme() -> None:
    network = with_unequal_channels()
    data = data_of(network)
    made = report(network, data, schemes=["affine-tensor", "symmetric-tensor-w8-a8"], fix=0.5)
    found = made.models[0].remedies
    assert found is not None
    assert found.before.scheme == "symmetric-tensor-w8-a8"
    assert found.hint is None  # a network in memory is no run
    words = " ".join(str(made).split())
    assert "symmetric-tensor-w8-a8, limit 0.50 pp; 200 images of the validation split" in words
    assert f"Best: {found.chosen}. The drop goes from {drops(found)['before']:.2f} pp" in words
    assert "within the limit. On the test split, read once: accuracy" in words
    fine = report(centred(Net()), data_of(centred(Net())), schemes=["affine-tensor"], fix=0.5)
    assert fine.models[0].remedies is not None
    assert fine.models[0].remedies.before.scheme == "ao-static"
    assert "is within the limit: nothing was tried" in " ".join(str(fine).split())


@pytest.mark.parametrize("limit", [-0.1, float("nan"), float("inf"), "x", 101])
def test_limits_that_are_none(limit: Any) -> None:
    with pytest.raises(UsageError, match="expected a finite number of at least 0 and at most 100"):
        report(Net(), "digits", fix=limit)


def run_of(**settings: Any) -> Subject:
    return Subject(name="run", path="runs/my run", config=TrainConfig(**settings), state={})


@pytest.mark.parametrize(
    ("scheme", "more"),
    [
        ("ao-static", ""),
        ("affine-tensor-w4-a8", " --bits 4"),
        ("ao-default", " --weights symmetric --granularity channel"),
        ("pow2-tensor-w8-a8", None),
        ("affine-tensor-w8-a4", None),
    ],
)
def test_the_hint_is_a_command_that_qwd_train_takes(scheme: str, more: str | None) -> None:
    from qwd_cli.train import command

    hint = qat_command(run_of(), parse_scheme(scheme))
    if more is None:
        assert hint is None
        return
    assert hint == f"qwd train --qat --from 'runs/my run'{more}"
    context = command.make_context("train", shlex.split(hint)[2:])
    assert context.params["from_"] == "runs/my run"
    assert qat_command(run_of(qat=True), parse_scheme(scheme)) is None


def test_names_of_remedies() -> None:
    assert Recipe().name == "none"
    assert Recipe(bias=True, clip="mse", per_channel=True).name == (
        "per-channel scales + clipping (mse) + bias correction"
    )


def test_a_choice_that_may_be_chance_is_called_so() -> None:
    network = with_unequal_channels()
    made = report(network, data_of(network), schemes=["ao-static"], fix=0.5)
    found = made.models[0].remedies
    assert found is not None
    assert found.chosen is not None

    def doubtful(entry: Remedy) -> Remedy:
        return replace(entry, recovered_low_pp=-0.1) if entry.name == found.chosen else entry

    other = replace(found, entries=tuple(map(doubtful, found.entries)))
    page = str(replace(made, models=(replace(made.models[0], remedies=other),)))
    assert "200 images cannot tell that from chance" in " ".join(page.split())
    assert "cannot tell that from chance" not in " ".join(str(made).split())
    none = replace(found, chosen=None)
    page = str(replace(made, models=(replace(made.models[0], remedies=none),)))
    assert "No remedy that was tried is better than the scheme as it is." in page
