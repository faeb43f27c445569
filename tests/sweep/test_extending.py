"""More of a sweep that exists: the union, and what may not differ."""

from pathlib import Path

import pytest

from qwd.errors import UsageError
from qwd.sweep import begin, cells_of, read
from qwd.sweep.design import Arm, Design
from qwd.sweep.extending import extended

FOLDER = Path("sweeps/x")


def more(stored: Design, **settings) -> Design:
    return extended(stored, read({}, {}, settings), FOLDER)


def ids(design: Design) -> list[str]:
    return [cell.id for cell in cells_of(design)]


def test_nothing_new_is_the_same() -> None:
    stored = begin(read({}, {}, {"wd": "0,1e-4", "epochs": 2, "lr": "0.1,0.2"}))
    assert more(stored) == stored
    assert more(stored, wd=1e-4, epochs=2, lr=0.2, optimizer="sgd") == stored


def test_values_and_seeds_are_added_and_the_grid_stays_a_product() -> None:
    stored = begin(read({}, {}, {"wd": "0,1e-4", "seeds": 2}))
    wider = more(stored, wd="1e-4,1e-3", seeds=3)
    assert (wider.axes["wd"], wider.seeds) == ((0.0, 1e-4, 1e-3), (0, 1, 2))
    assert set(ids(stored)) < set(ids(wider))
    assert len(ids(wider)) == 9


def test_a_setting_that_begins_to_vary_leaves_the_names_of_old_cells() -> None:
    stored = begin(read({}, {}, {"wd": "0,1e-4", "seeds": 1, "epochs": 2}))
    wider = more(stored, optimizer="adamw,sgd", epochs="2,4")
    assert wider.unnamed == {"optimizer": "sgd", "epochs": 2}
    assert set(ids(stored)) < set(ids(wider))
    before = {cell.id: cell.config for cell in cells_of(stored)}
    after = {cell.id: cell.config for cell in cells_of(wider)}
    assert all(after[name] == config for name, config in before.items())
    assert after["wd0-adamw-epochs4-s0"].lr == 1e-3
    again = more(wider, momentum="0.9,0.5")
    assert set(ids(wider)) < set(ids(again))


DIFFERENT = [
    ({"epochs": 3}, "--epochs 3: the sweep in sweeps/x has 2"),
    ({"optimizer": "adamw"}, "--optimizer adamw: the sweep in sweeps/x has sgd"),
    ({"no_decay": "conv"}, "--no-decay conv: the sweep in sweeps/x has none"),
    ({"bits": 4}, "--bits 4: the sweep in sweeps/x has 8"),
    ({"scheme": "ao-static"}, "--scheme ao-static: the sweep in sweeps/x has none"),
    ({"calibration_n": 9}, "--calibration-n 9: the sweep in sweeps/x has 512"),
    ({"qat": True}, "--qat True: the sweep in sweeps/x has False"),
    ({"reference": 3}, "--reference 3: expected one of"),
]


@pytest.mark.parametrize(("settings", "message"), DIFFERENT)
def test_another_common_setting_is_refused(settings, message) -> None:
    stored = begin(read({}, {}, {"epochs": 2, "wd": "0,1e-4"}))
    with pytest.raises(UsageError) as caught:
        more(stored, **settings)
    assert message in str(caught.value)


def test_a_default_that_differs_among_cells_cannot_be_extended() -> None:
    stored = begin(read({}, {}, {"optimizer": "sgd,adamw"}))
    with pytest.raises(UsageError, match="--lr 0.1,0.2: the cells in sweeps/x have 0.1,1e-3 by"):
        more(stored, lr="0.1,0.2")


def test_the_machine_and_the_reference_are_as_asked_for_now() -> None:
    stored = begin(read({}, {}, {"wd": "0,1e-4,1e-3", "threads": 1, "reference": 1e-3}))
    now = more(stored, threads=2, device="cpu", reference=1e-4)
    assert (now.settings["threads"], now.settings["device"], now.reference) == (2, "cpu", 1e-4)
    assert more(stored).reference == 1e-3


def test_arms_of_the_placebo_are_kept_with_the_value_that_did_not_vary() -> None:
    stored = begin(read({}, {}, {"wd": "0,1e-4", "seeds": 1, "placebo": True}))
    arm = Arm(role="placebo", values={"wd": 1e-6})
    stored = Design(**{**vars(stored), "arms": (arm,)})
    wider = more(stored, momentum="0.5,0.9")
    assert wider.arms == (Arm(role="placebo", values={"wd": 1e-6, "momentum": 0.9}),)
    assert list(wider.arms[0].values) == list(wider.axes)
    assert "placebo-wd1e-6-s0" in ids(wider)
