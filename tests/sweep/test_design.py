"""What is asked for, and the cells that it makes."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from qwd.config import fields
from qwd.errors import InputError, UsageError
from qwd.sweep import Given, begin, cells_of, read
from qwd.sweep.axes import may_vary, part_of_id
from qwd.sweep.reading import read_design, seeds
from tests.sweep.small import asked


def grid(**settings) -> list[str]:
    return [cell.id for cell in cells_of(begin(read({}, {}, settings)))]


def test_numbers_words_and_flags_may_vary_and_lists_and_places_may_not() -> None:
    found = {field.name for field in fields() if may_vary(field)}
    assert {"wd", "lr", "form", "optimizer", "model", "bits", "batch_size", "decay_bias"} <= found
    fixed = {"seed", "from_", "data", "data_dir", "threads", "no_decay", "mean", "lr_step", "wd_at"}
    assert not fixed & found


def test_every_combination_is_a_cell_and_seeds_come_one_after_another() -> None:
    assert grid(wd="0,1e-4", lr="0.1", seeds="0..1") == [
        "wd0-s0",
        "wd1e-4-s0",
        "wd0-s1",
        "wd1e-4-s1",
    ]
    assert grid(wd="2^-12", seeds=1, batch_size="16..64", optimizer="sgd,adamw") == [
        f"wd0.000244140625-{name}-batch-size{size}-s0"
        for name in ("sgd", "adamw")
        for size in (16, 32, 64)
    ]
    cells = cells_of(begin(read({}, {}, {"decay_bias": [False, True], "seeds": 1})))
    assert [c.config.decay_bias for c in cells] == [False, True, False, True]
    assert cells[1].id == "wd1e-5-decay-bias-s0"


def test_without_a_word_it_is_the_question_of_the_project() -> None:
    design = begin(read({}, {}, {}))
    assert (design.axes, design.seeds) == ({"wd": (1e-5, 1e-4)}, tuple(range(8)))
    assert design.reference_wd == 1e-5
    assert begin(read({}, {}, {"wd": "1e-3,0"})).reference_wd == 1e-3
    assert begin(read({}, {}, {"wd": "0"})).reference_wd == 0.0
    assert begin(read({}, {}, {"wd": "0,1,2", "reference": 2})).reference_wd == 2


def test_each_cell_computes_on_one_thread_unless_asked_otherwise() -> None:
    assert cells_of(begin(asked()))[0].config.threads == 1
    assert cells_of(begin(asked(threads=2)))[0].config.threads == 2


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("3", (0, 1, 2)),
        (2, (0, 1)),
        ("5,2", (5, 2)),
        ([7], (7,)),
        ("4..6,9", (4, 5, 6, 9)),
        ("5..5", (5,)),
    ],
)
def test_seeds_are_a_count_or_a_list(raw, found) -> None:
    assert seeds(raw) == found


@pytest.mark.parametrize("raw", ["0", "-1", "1,1", "a", "", "1.5", [], True, "3..1", None])
def test_other_seeds_are_refused(raw) -> None:
    with pytest.raises(ValueError, match="a count of seeds, or a list"):
        seeds(raw)


def test_options_come_before_variables_before_files() -> None:
    file = {"wd": [1e-3, 1e-2], "seeds": 2, "epochs": 3, "seed": 9}
    found = read({"wd": "0,1"}, {"QWD_SEEDS": "4", "QWD_EPOCHS": "5"}, file)
    assert found == {"wd": (0.0, 1.0), "seeds": (0, 1, 2, 3), "epochs": (5,)}
    # What `qwd train --print-config` writes has one seed.
    assert read({}, {}, {"seed": 9})["seeds"] == (9,)


WRONG = [
    ({"wdd": 1}, "unknown setting 'wdd': did you mean 'wd'?"),
    ({"wd": "x"}, "wd in the file 'x': expected a list"),
    ({"batch_size": "1.5"}, "batch_size in the file '1.5'"),
    ({"lr": "0.1,0.1"}, "none of them twice"),
    ({"optimizer": "sgd,sdg"}, "did you mean 'sgd'?"),
    ({"data": "digits,mnist"}, "data in the file 'digits,mnist'"),
    ({"reference": 3}, "--reference 3: expected one of --wd 1e-5,1e-4"),
    ({"scheme": "affine-tenser"}, "did you mean 'affine-tensor'?"),
    ({"bits": 9}, "bits in the file 9"),
    ({"optimizer": "sgd,adamw", "nesterov": True}, "cell wd1e-5-adamw-s0: --nesterov: belongs to"),
    ({"form": "l2,l1", "cautious": True}, "cell wd1e-5-l2-s0: --cautious: belongs to --form"),
    ({"qat": [False, True], "bits": 4}, "cell wd1e-5-no-qat-s0: --bits 4: belongs to --qat"),
    ({"model": "mlp,a-b:c"}, "expected a list with commas, each a known model"),
    ({"wd": "1e-6..1:1000", "seeds": 1000}, "1,000,000 cells: expected at most 100,000"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_wrong_use_names_the_setting_or_the_cell(settings, message) -> None:
    with pytest.raises(UsageError) as caught:
        cells_of(begin(read({}, {}, settings)))
    assert message in str(caught.value)


def test_two_cells_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two cells would be called torchvision-a-b-wd1e-4-s0"):
        grid(model="torchvision:a b,torchvision:a-b", wd=1e-4)


def test_bits_are_reported_or_with_qat_trained_for() -> None:
    plain = begin(read({}, {}, {"bits": "8,4"}))
    assert (plain.reporting.bits, "bits" in plain.axes) == ((8, 4), False)
    aware = begin(read({}, {}, {"bits": "8,4", "qat": True}))
    assert (aware.reporting.bits, aware.axes["bits"]) == ((8,), (8, 4))
    assert {cell.config.bits for cell in cells_of(aware)} == {4, 8}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"wd": "0,2^-12,1e-4", "lr": "1e-3..1e-1", "no_decay": ["conv,1"], "seeds": "3,9"},
        {"qat": True, "bits": "8,4", "reference": 1e-4, "placebo": True, "threads": 2},
        {"form": "l2,decoupled", "decay_norm": [False, True], "bits": "8,6", "scheme": "ao-static"},
    ],
)
def test_a_design_reads_back_from_its_file(settings, tmp_path: Path) -> None:
    design = begin(read({}, {}, settings))
    (tmp_path / "sweep.yaml").write_text(design.to_yaml())
    assert read_design(tmp_path) == design
    assert begin(read({}, {}, yaml.safe_load(design.to_yaml()))) == design


@pytest.mark.parametrize(
    "content", ["wd: [1e-4", "wdd: 1", "- 1", "arms: 3", "arms: [{role: x, wd: 1}]", "unnamed: 3"]
)
def test_a_broken_file_is_an_input_error_that_names_it(content: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(content)
    with pytest.raises(InputError, match="sweep.yaml"):
        read_design(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("wd", 1e-4, "wd1e-4"),
        ("wd", 1.23456789e-4, "wd0.000123456789"),
        ("batch_size", 32, "batch-size32"),
        ("model", "pkg.mod:Net", "pkg.mod-Net"),
        ("lr_schedule", "cosine", "lr-schedule-cosine"),
        ("cautious", True, "cautious"),
        ("cautious", False, "no-cautious"),
    ],
)
def test_names_of_cells_are_what_people_write(name, value, part) -> None:
    assert part_of_id(name, value) == part


def test_a_thousand_cells_need_no_torch() -> None:
    code = (
        "import sys\nfrom qwd.sweep import begin, cells_of, read\n"
        "cells = cells_of(begin(read({}, {}, {'wd': '1e-6..1e-2:10', 'seeds': 100})))\n"
        "assert len({c.id for c in cells}) == 1000\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reading_again_what_was_read_changes_nothing() -> None:
    given = read({}, {}, {"wd": "1e-4", "no_decay": "conv"})
    assert isinstance(given, Given)
    assert begin(given) == begin(given)
