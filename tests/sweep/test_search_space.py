"""What a search is: ranges and values, what is refused, and its file."""

from typing import Any

import pytest
import yaml

from qwd.errors import UsageError
from qwd.sweep.search_space import Range, begin, read_space, same


def test_people_draw_like_this_where_nothing_is_said() -> None:
    space = begin({})
    assert space.drawn == {
        "lr": Range(1e-5, 1e-1),
        "wd": Range(1e-7, 1e-1),
        "momentum": Range(0.9, 0.999),
    }
    assert (space.sampler, space.seed, space.calibration_n) == ("random", 0, 512)
    config = space.config({"lr": 0.03, "wd": 1e-6, "momentum": 0.95})
    assert (config.lr, config.wd, config.momentum, config.threads) == (0.03, 1e-6, 0.95, 1)


def test_a_value_is_fixed_and_a_range_is_drawn_from() -> None:
    space = begin(
        read_space({"lr": "1e-4..1e-1", "wd": "1e-4"}, {"QWD_MOMENTUM": "0.5..0.9"}, {"seed": 7})
    )
    assert space.drawn == {"lr": Range(1e-4, 1e-1), "momentum": Range(0.5, 0.9)}
    assert space.config({"lr": 1e-2, "momentum": 0.6}).wd == 1e-4
    assert space.seed == 7
    assert begin(read_space({"lr": "2^-8..10^-1"}, {})).drawn["lr"] == Range(2**-8, 0.1)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "lr",
            "0.1,0.2",
            "--lr '0.1,0.2': expected a value, or a range to draw from, as 1e-5..0.1",
        ),
        ("lr", "1e-4..1e-1:5", "a value, or a range to draw from"),
        ("lr", "1e-1..1e-4", "starts above 0 and rises"),
        ("wd", "0..1e-4", "starts above 0 and rises"),
        ("momentum", "0.9..1", "--momentum '0.9..1': expected a value, or a range"),
        ("momentum", "0.9..0.9", "and rises"),
        ("lr", "x..1", "a finite number"),
        ("lr", [0.1, 0.2], "a value, or a range"),
        ("sampler", "grid", "--sampler 'grid': expected one of random, tpe"),
        ("calibration_n", 0, "--calibration-n 0: expected a whole number"),
        ("seeds", "8", "--seeds 8: belongs to a grid, not to --search"),
        ("reference", "1e-4", "--reference 1e-4: belongs to a grid"),
        ("scheme", ("ao-static",), "--scheme ao-static: belongs to a grid"),
        ("learning_rate", 1, "unknown setting 'learning_rate'"),
    ],
)
def test_what_is_refused_and_why(option: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        begin(read_space({option: value}, {}))
    assert message in str(error.value)


def test_momentum_of_a_foreign_optimizer_is_drawn_where_it_is_asked_for() -> None:
    foreign = {"optimizer": "torch.optim:Adagrad"}
    assert list(begin(read_space(foreign, {})).drawn) == ["lr", "wd"]
    asked = begin(read_space({**foreign, "momentum": "0.5..0.9"}, {}))
    assert list(asked.drawn) == ["lr", "wd", "momentum"]
    assert begin(read_space({}, {}, asked.to_dict())) == asked


def test_where_all_is_given_there_is_nothing_to_draw() -> None:
    with pytest.raises(UsageError, match="nothing to draw"):
        begin(read_space({"lr": 0.1, "wd": "1e-4", "momentum": "0.9"}, {}))


def test_settings_that_contradict_each_other_are_said_at_once() -> None:
    with pytest.raises(UsageError, match="--nesterov: belongs to --optimizer sgd"):
        begin(read_space({"optimizer": "adamw", "nesterov": True}, {}))


def test_its_file_reads_back() -> None:
    asked = {"lr": "1e-4..1e-1", "wd": 0.0, "no_decay": ["a,b"], "sampler": "tpe", "lr_step": None}
    space = begin(read_space(asked, {}))
    content = yaml.safe_load(yaml.safe_dump(space.to_dict()))
    assert begin(read_space({}, {}, content)) == space


def test_a_search_that_exists_takes_no_other_settings() -> None:
    stored = begin(read_space({"lr": "1e-4..1e-1", "epochs": 3}, {}))
    assert same(stored, {"epochs": 3, "model": "small_cnn"}, "f") == stored
    assert same(stored, {"device": "cpu"}, "f").config(stored.lowest).device == "cpu"
    for asked, message in (
        ({"epochs": 4}, "--epochs 4: the search in f has 3"),
        ({"lr": 0.1}, "--lr 0.1: the search in f has 1e-4..0.1"),
        ({"sampler": "tpe"}, "--sampler tpe: the search in f has random"),
        ({"wd": Range(1e-7, 1e-2)}, "--wd 1e-7..0.01: the search in f has 1e-7..0.1"),
    ):
        with pytest.raises(UsageError) as error:
            same(stored, asked, "f")
        assert message in str(error.value)
