"""Files of settings that are wrong: refused in one line, nothing run, nothing taken in silence."""

import os
from pathlib import Path

import pytest

from qwd.config import TrainConfig
from qwd.errors import InputError, UsageError
from qwd.layers import from_layers, load_yaml
from tests.commands import qwd

NO_YAML = {
    "a tag that runs a command": b"wd: !!python/object/apply:os.system ['touch canary']\n",
    "a tag of an object": b"!!python/object/new:os.system ['touch canary']\n",
    "a tag of a function": b"wd: !!python/name:os.system\n",
    "an own tag": b"wd: !own 3\n",
    "a tag that does not fit": b"wd: !!timestamp x\n",
    "another": b"wd: !!bool x\n",
    "no int": b"wd: !!int x\n",
    "aliases": b"a: &a [x, x]\nb: &b [*a, *a]\nwd: [*b, *b]\n",
    "a list in itself": b"wd: &a [*a]\n",
    "a key twice": b"wd: 1e-4\nwd: 1e-5\n",
    "a key twice, quoted": b"wd: 1e-4\n'wd': 1e-5\n",
    "a mapping as key": b"{a: 1}: 2\n",
    "two documents": b"wd: 1\n---\nwd: 2\n",
    "a list": b"- wd\n",
    "a text": b"wd",
    "open brackets": b"wd: [",
    "deep": b"wd: " + b"[" * 20_000,
    "deep mappings": b"wd: " + b"{a: " * 5000,
    "tabs": b"\twd: 1\n",
    "zero bytes": b"wd: \0\n",
    "binary": bytes(range(256)),
    "utf-16": "wd: 1\n".encode("utf-16"),
    "endless digits": b"epochs: " + b"9" * 5000,
    "large": b"wd: 1e-4\n" + b"#" * (1 << 20),
}
WRONG = {
    "wd: .nan": "wd in the file '.nan'",
    "wd: .inf": "wd in the file '.inf'",
    "wd: 1e400": "wd in the file '1e400'",
    "wd: -1": "wd in the file -1",
    "wd: [1]": "wd in the file [1]",
    "wd: []": "wd in the file []",
    "wd: {a: 1}": "wd in the file {'a': 1}",
    "wd: true": "wd in the file True",
    "wd: 2020-13-45": "wd in the file '2020-13-45'",
    'wd: "\\e[31m"': r"wd in the file '\x1b[31m'",
    "epochs: 3.0": "epochs in the file 3.0",
    "epochs: 1:30": "epochs in the file '1:30'",
    "epochs: 1_0": "epochs in the file '1_0'",
    "epochs: 0x10": "epochs in the file '0x10'",
    f"epochs: {10**4000}": "epochs in the file 1000",
    "amp: 7": "amp in the file 7",
    "from: 3": "from in the file 3",
    "no_decay: [1]": "no_decay in the file [1]",
    "no_decay: {a: 1}": "no_decay in the file {'a': 1}",
    "lr_step: [0.5, .nan]": "lr_step in the file [0.5, '.nan']",
    "mean: [0.5, a]": "mean in the file [0.5, 'a']",
    "batch-size: 3": "did you mean 'batch_size'?",
    "WD: 3": "unknown setting 'WD'",
    "1: 2": "unknown setting 1",
    "~: 2": "unknown setting None",
    "yes: 2": "unknown setting True",
    "<<: {wd: 1}": "unknown setting '<<'",
    '"\\e[31m": 1': r"unknown setting '\x1b[31m'",
}


@pytest.mark.parametrize("what", NO_YAML)
def test_what_is_no_file_of_settings(what: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_bytes(NO_YAML[what])
    with pytest.raises(InputError, match=r"c\.yaml") as caught:
        load_yaml("c.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert os.listdir() == ["c.yaml"]


@pytest.mark.parametrize("content", WRONG)
def test_values_and_keys_that_are_wrong(content: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(UsageError) as caught:
        from_layers({}, {}, load_yaml(path))
    assert WRONG[content] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"# nothing\n", b"\xef\xbb\xbfwd: 1e-4\n", b"wd: 1e-4\r\n", b"---\nwd: 1.0e-04\n...\n"],
)
def test_files_that_are_merely_odd_are_read(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    assert from_layers({}, {}, load_yaml(path)) == TrainConfig()


def test_numbers_are_read_as_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("epochs: 010\nwd: .5\nlr: 1.\nwarmup: +2.5e-1\nbias_lr: 3\nmomentum: ~\n")
    config = from_layers({}, {}, load_yaml(path))
    read = (config.epochs, config.wd, config.lr, config.warmup, config.bias_lr, config.momentum)
    assert read == (10, 0.5, 1.0, 0.25, 3.0, 0.9)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in (".", "pipe", "loop", "absent", "n" * 300):
        with pytest.raises(InputError, match="it is no file"):
            load_yaml(tmp_path / name)


@pytest.mark.parametrize("command", ["train", "sweep", "sweep --search 3", "dose", "find-lr"])
def test_the_commands_say_it_in_one_line(command: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(NO_YAML["a tag that runs a command"])
    done = qwd(*command.split(), "--config", "c.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert done.stderr.startswith("qwd: error: c.yaml is not valid YAML: could not determine")
    assert os.listdir(tmp_path) == ["c.yaml"]


def test_a_number_that_python_does_not_print() -> None:
    with pytest.raises(UsageError, match="--epochs of type int: expected a whole number"):
        TrainConfig(epochs=10**5000)
