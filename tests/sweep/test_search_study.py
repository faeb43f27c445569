"""The trials of a search in an Optuna study: draws, those who died, several folders."""

import sqlite3
from pathlib import Path

import numpy as np
import optuna
import pytest
from scipy import stats

from qwd.errors import StorageError, UsageError
from qwd.sweep.search_optuna import shown
from tests.sweep.searching import drawn, study


def test_draws_are_even_in_the_logarithm(tmp_path: Path) -> None:
    made = study(tmp_path / "s", 150, lr="1e-5..1e-1")
    found = []
    for _ in range(150):
        with made.next() as trial:
            assert trial is not None
            found.append(trial.values)
            made.ended(trial.number, 0.5, 0.5)
    with made.next() as none_left:
        assert none_left is None
    exponents = {
        "lr": [np.log10(v["lr"]) for v in found],
        "wd": [np.log10(v["wd"]) for v in found],
        "momentum": [np.log10(1 - v["momentum"]) for v in found],
    }
    for name, (low, high) in {"lr": (-5, -1), "wd": (-7, -1), "momentum": (-3, -1)}.items():
        assert stats.kstest(exponents[name], stats.uniform(low, high - low).cdf).pvalue > 0.01
    # The three are drawn apart from each other.
    correlations = np.corrcoef(list(exponents.values()))
    assert np.abs(correlations - np.eye(3)).max() < 0.25


def test_draws_follow_from_the_seed_and_the_number_of_the_trial(tmp_path: Path) -> None:
    first, second = study(tmp_path / "a", 3), study(tmp_path / "b", 3)
    other = study(tmp_path / "c", 3, seed=1)
    for number in range(3):
        values = []
        for made in (first, second, other):
            with made.next() as trial:
                assert trial is not None
                assert trial.number == number
                values.append(trial.values)
                made.ended(trial.number, number / 9, 0.5)
        assert values[0] == values[1]
        assert values[0] != values[2]


def test_a_trial_whose_process_died_is_taken_over(tmp_path: Path) -> None:
    made = study(tmp_path / "s", 2)
    first = drawn(made)
    with sqlite3.connect(tmp_path / "s" / "search.db") as file:
        file.execute("update trial_heartbeats set heartbeat = datetime('now', '-1 day')")
    assert made.left() == 2
    assert drawn(made) == first
    with made.next() as again:
        assert again == first
        with study(tmp_path / "s", 2).next() as second:
            assert second is not None
            assert second.number == 1
            with made.next() as third:
                assert third is None
            assert made.left() == 0
            assert made.ended(0, 0.25, 0.5)
            assert not made.ended(0, 0.75, 0.5)
            assert made.diverged(1, "too fast")
    assert [t.int8_accuracy for t in made.all()] == [0.25, None]
    assert [t.diverged for t in made.all()] == [None, "too fast"]
    assert made.left() == 0


def test_failed_trials_do_not_count(tmp_path: Path) -> None:
    made = study(tmp_path / "s", 1)
    made.failed(drawn(made).number, "no space")
    assert (made.all(), made.left()) == ((), 1)
    with made.next() as trial:
        assert trial is not None
        assert trial.number == 1
        made.ended(1, 0.5, 0.5)
    assert [t.number for t in made.all()] == [1]


def test_two_folders_share_a_study_and_its_number_of_trials(tmp_path: Path) -> None:
    there = tmp_path / "shared.db"
    a = study(tmp_path / "a", 3, mark="a", storage=there)
    b = study(tmp_path / "b", 3, mark="b", storage=there)
    with a.next() as first, b.next() as second, a.next() as third:
        assert [t and t.number for t in (first, second, third)] == [0, 1, 2]
        with b.next() as none_left:
            assert none_left is None
        assert [t.mine for t in a.all()] == [True, False, True]
        assert b.left() == 0
        b.ended(1, 0.5, 0.5)
    # What `a` left behind is for `a` alone, until it shows no sign of life.
    with b.next() as none_left:
        assert none_left is None
    with sqlite3.connect(there) as file:
        file.execute("update trial_heartbeats set heartbeat = datetime('now', '-1 day')")
    assert b.left() == 2
    with b.next() as fourth:
        assert fourth is not None
        assert fourth.number == 3
    assert {t.number for t in b.all()} == {1, 3}
    assert not a.ended(0, 0.9, 0.9)


def test_a_process_that_died_while_it_drew_leaves_nothing_behind(tmp_path: Path) -> None:
    made = study(tmp_path / "s", 1)
    raw = optuna.load_study(study_name="name", storage=f"sqlite:///{tmp_path}/s/search.db")
    raw.ask().set_user_attr("folder", "here")  # claimed, nothing drawn
    with made.next() as trial:
        assert trial is not None
        assert trial.number == 1
        made.ended(1, 0.5, 0.5)
    nobody = raw.ask()
    assert study(tmp_path / "s", 2).left() == 0  # nobody knows whose it is, but it may live
    with sqlite3.connect(tmp_path / "s" / "search.db") as file:
        file.execute("update trials set datetime_start = '2001-01-01 00:00:00' where number = 2")
    bigger = study(tmp_path / "s", 2)
    with bigger.next() as trial:
        assert trial is not None
        assert trial.number == nobody.number + 1


def test_studies_of_others_and_other_settings_are_refused(tmp_path: Path) -> None:
    there = tmp_path / "shared.db"
    study(tmp_path / "a", 3, storage=there)
    study(tmp_path / "b", 9, storage=there, device="cpu")
    with pytest.raises(UsageError, match="is a search with epochs 1, not 2; choose another --name"):
        study(tmp_path / "c", 3, storage=there, epochs=2)
    with pytest.raises(UsageError, match="with sampler random, not tpe"):
        study(tmp_path / "c", 3, storage=there, sampler="tpe")
    other = tmp_path / "other.db"
    optuna.create_study(storage=f"sqlite:///{other}", study_name="name").ask()
    with pytest.raises(UsageError, match="its study 'name' is no search of qwd"):
        study(tmp_path / "c", 3, storage=other)


def test_the_tree_sampler_goes_where_it_was_good(tmp_path: Path) -> None:
    """The best rate is 10^-2: the sampler comes closer to it than chance does."""
    distances = {}
    for sampler in ("random", "tpe"):
        made = study(tmp_path / sampler, 40, sampler=sampler, lr="1e-5..1", wd=0.0, momentum=0.9)
        found = []
        for _ in range(40):
            with made.next() as trial:
                assert trial is not None
                found.append(abs(np.log10(trial.values["lr"]) + 2))
                made.ended(trial.number, 1 - found[-1] / 10, 0.5)
        distances[sampler] = np.mean(found[20:])
    assert distances["tpe"] < 0.6 * distances["random"]


def test_what_fails_in_the_storage_is_a_line_without_the_password(tmp_path: Path) -> None:
    assert shown("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    with pytest.raises(StorageError, match="unable to open database file"):
        study(tmp_path / "s", 1, storage=tmp_path / "absent" / "x.db")
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(StorageError, match="file is not a database"):
        study(tmp_path / "s", 1, storage=tmp_path / "text.db")
