"""Settings: precedence, round trip, and one clear line for every wrong value."""

import dataclasses
import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qwd import config, layers
from qwd.config import TrainConfig
from qwd.errors import InputError, UsageError
from qwd.setting import option_name


def test_options_over_variables_over_file_over_defaults() -> None:
    made = layers.from_layers(
        {"lr": "0.3"},
        {"QWD_LR": "0.2", "QWD_EPOCHS": "7", "HOME": "elsewhere"},
        {"lr": 0.1, "epochs": 5, "seed": 3},
    )
    assert (made.lr, made.epochs, made.seed, made.batch_size) == (0.3, 7, 3, 32)


def test_numbers_as_people_write_them_in_yaml() -> None:
    """YAML 1.1 reads 1e-4 as a string."""
    assert layers.from_layers({}, {}, yaml.safe_load("wd: 1e-4\nmean: [0.5]\nstd: 0.25")) == (
        TrainConfig(wd=1e-4, mean=(0.5,), std=(0.25,))
    )


def test_defaults_follow_the_optimizer() -> None:
    assert (TrainConfig().form, TrainConfig().lr) == ("l2", 0.1)
    assert (TrainConfig(optimizer="adamw").form, TrainConfig(optimizer="adam").lr) == (
        "decoupled",
        1e-3,
    )
    assert TrainConfig(optimizer="adamw", form="l2").form == "l2"


def test_a_setting_has_its_default_where_it_applies_and_none_elsewhere() -> None:
    cosine, multistep = TrainConfig(), TrainConfig(lr_schedule="multistep")
    assert (cosine.lr_min, cosine.lr_step) == (0.0, None)
    assert (multistep.lr_min, multistep.lr_step, multistep.lr_gamma) == (None, (0.5, 0.75), 0.1)
    assert dataclasses.replace(multistep, lr_schedule="cosine") == cosine
    assert TrainConfig(optimizer="torch.optim:Adadelta").momentum is None


@given(
    wd=st.floats(0, 10),
    seed=st.integers(0, 2**31 - 1),
    patterns=st.lists(st.sampled_from([r"conv\d", "bias,weight", "'", "a: b"]), max_size=3),
    mean=st.none() | st.lists(st.floats(-1, 1), min_size=3, max_size=3),
)
def test_yaml_round_trip(wd: float, seed: int, patterns: list[str], mean) -> None:
    made = TrainConfig(
        wd=wd,
        seed=seed,
        no_decay=tuple(patterns),
        mean=mean,
        std=None if mean is None else (1, 2, 3),
    )
    assert layers.from_layers({}, {}, yaml.safe_load(made.to_yaml())) == made


WRONG = {
    "wd": ["-1", "nan", "inf", "1e400", "", "x", True, [1], "1,2"],
    "lr": ["0", "-0.1", "nan"],
    "epochs": ["0", "-3", "1.5", "two", 2.5, True, "9" * 30],
    "batch_size": ["0", "1e3"],
    "seed": ["-1", "1.0"],
    "momentum": ["1", "-0.1"],
    "warmup": ["-1", "inf"],
    "mean": ["0.5,x", "", "0.5,,0.5"],
    "std": ["0", "-1"],
    "image_size": ["0", "3", "wide"],
    "augment": ["flip", ""],
    "form": ["l3", ""],
    "optimizer": ["sdg"],
    "lr_schedule": ["cosin"],
    "model": ["resnet21", "torchvision:", "a b:c", ""],
    "data": ["digit", "imagefolder:", ""],
    "no_decay": ["(", ""],
    "amp": ["maybe", 3],
    "device": [""],
    "threads": ["0", "-1"],
    "lr_min": ["-1", "nan"],
    "lr_every": ["0", "x"],
    "lr_step": ["0", "0.5,0.5", "-1"],
    "lr_gamma": ["0", "1.5"],
    "lr_rate": ["0", "inf"],
    "lr_power": ["0"],
    "lr_patience": ["0", "0.5"],
    "lr_peak_at": ["0", "1"],
    "base_batch_size": ["0", "1.5"],
    "bias_lr": ["0", "-2"],
    "depth_lr": ["0", "1.1"],
    "optimizer_option": ["eps", "=3"],
    "lr_corrected": [""],
    "decay": ["conv", "conv=-1", "(=1", "=1", "conv=nan"],
    "wd_schedule": ["linar"],
    "wd_end": ["-1", "nan"],
    "wd_at": ["3", "a=1", "1=-1"],
    "wd_until": ["0", "-1"],
    "early_stop": ["0", "x"],
    "keep_every": ["0", "1.5"],
    "from_": [""],
    "bits": ["1", "9", "4.5"],
    "weights": ["minmax", ""],
    "granularity": ["layer"],
    "observer_epochs": ["0", "x"],
    "norm_epochs": ["0", "-1"],
    "qat_wd": ["-1", "x-1", "0.1x", "nan", ""],
}


@pytest.mark.parametrize(("name", "raw"), [(n, v) for n, values in WRONG.items() for v in values])
def test_a_wrong_value_is_one_line_with_option_value_and_what_is_right(name: str, raw) -> None:
    with pytest.raises(UsageError) as caught:
        layers.from_layers({name: raw}, {})
    line = str(caught.value)
    assert line.startswith(f"{option_name(name)} {raw!r}: expected ")
    assert "\n" not in line


def test_every_setting_has_a_wrong_value_above() -> None:
    free = {"data_dir"} | {f.name for f in config.fields() if isinstance(f.default, bool)}
    assert {f.name for f in config.fields()} - free == set(WRONG) - {"amp"}


def test_unknown_names_anywhere_are_errors_with_the_nearest() -> None:
    for given_in in ({"epoch": "1"}, {}, None), ({}, {}, {"epoch": 1}):
        with pytest.raises(UsageError, match="unknown setting 'epoch': did you mean 'epochs'"):
            layers.from_layers(*given_in)
    with pytest.raises(UsageError, match="QWD_EPOCS: did you mean 'QWD_EPOCHS'"):
        layers.from_layers({}, {"QWD_EPOCS": "1"})
    with pytest.raises(UsageError, match="did you mean 'resnet20'"):
        layers.from_layers({"model": "resnet200"}, {})


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="--lr-gamma 0.5: belongs to --lr-schedule step, multis"):
        TrainConfig(lr_gamma=0.5)
    with pytest.raises(UsageError, match="--cautious: belongs to --form decoupled, not to l2"):
        TrainConfig(cautious=True)
    with pytest.raises(UsageError, match="--wd-schedule piecewise: needs --wd-at"):
        TrainConfig(wd_schedule="piecewise")
    with pytest.raises(UsageError, match="--warmup 3: must be less than --epochs 3"):
        TrainConfig(epochs=3, warmup=3)
    with pytest.raises(UsageError, match="--mean and --std go together"):
        TrainConfig(mean=(0.5,))
    with pytest.raises(UsageError, match="one per channel"):
        TrainConfig(mean=(0.5,), std=(0.5, 0.5))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"- a\n", "name: value"), (b"a: [", "not valid YAML"), (b"\xff\xfe\x00", "cannot read")],
)
def test_unreadable_files(tmp_path, content: bytes, words: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        layers.load_yaml(path)
    with pytest.raises(InputError, match="cannot read"):
        layers.load_yaml(tmp_path / "absent.yaml")


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().wd = 1.0  # type: ignore[misc]


def test_errors_name_the_layer_they_came_from(tmp_path) -> None:
    with pytest.raises(UsageError, match="QWD_EPOCHS 'abc': expected a whole number"):
        layers.from_layers({}, {"QWD_EPOCHS": "abc"})
    with pytest.raises(UsageError, match="epochs in the file 'abc': expected a whole number"):
        layers.from_layers({}, {}, {"epochs": "abc"})
    with pytest.raises(UsageError, match="from 0 to 2147483647"):
        layers.from_layers({"seed": str(2**40)}, {})
    (tmp_path / "twice.yaml").write_text("wd: 1\nlr: 2\nwd: 3\n")
    with pytest.raises(InputError, match="'wd' is given twice"):
        layers.load_yaml(tmp_path / "twice.yaml")
    os.mkfifo(tmp_path / "fifo.yaml")
    with pytest.raises(InputError, match="is no file"):
        layers.load_yaml(tmp_path / "fifo.yaml")
