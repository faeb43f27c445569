"""Every option of every command with values that are wrong for it: exit code 2 and one line.

The options are read off the commands, so a new one is tried without being mentioned here.
"""

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from qwd_cli.main import COMMANDS, cli, main

from tests.commands import qwd

ENDS_AT_ONCE = {
    "train": ("--print-config",),
    "sweep": ("--print-config",),
    "quantize-report": ("absent.pt",),
    "export": ("absent.pt",),
    "compare": ("absent.json", "absent2.json"),
    "dose": ("--data", "imagefolder:absent"),
    "find-lr": ("--data", "imagefolder:absent"),
    "cross-validate": ("--wd", "1e-4", "--data", "imagefolder:absent"),
    "list": (),
}
"""arguments with which a command ends before any work"""

FREE = {
    *("--out", "--name", "--config", "--data-dir", "--from", "--key", "--no-decay", "--filter"),
    *("--lr-corrected", "--json", "--csv", "--md", "--html", "--storage"),
}
"""options that take any text, or any path"""

NOWHERE = "nan \x1b[31m\u202e"
"""no number, no name of anything, and not fit for a terminal"""
NO_NUMBERS = ("nan", "inf", "-inf", "1e400", "-1e999", "\uff11", "1_0", "0x10", "--1", "1e")
NO_LISTS = (" ", ",", "1,,2", "..", "1e-4..", "1..0", "2^99999..2^3", "[]", "{}", "=", ":", "true")
HUGE = ("9" * 5000, "x" * 100_000, "(" * 3000, "a{99999999999}")


def options() -> Iterator[tuple[str, click.Option]]:
    """Every option with a value, and its command."""
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option) and not option.is_flag:
                yield name, option


CASES = [pytest.param(n, o, id=f"{n} {o.opts[-1]}") for n, o in options()]


def arguments(name: str, option: str, *values: str) -> list[str]:
    """A command line that gives these values to an option."""
    base = ENDS_AT_ONCE[name]
    if option in base:
        at = base.index(option)
        base = base[:at] + base[at + 2 :]
    return [name, *base, *(f"{option}={value}" for value in values)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    """A command in this process: its exit code and what it wrote to stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGPIPE)}

    def called(arguments: list[str]) -> tuple[int, str]:
        with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
            main(arguments)
        return ended.value.code or 0, capfd.readouterr().err  # pyright: ignore[reportReturnType]

    yield called
    for number, handler in handlers.items():
        signal.signal(number, handler)


def check_line(stderr: str) -> None:
    """One line that a terminal and a reader can stand."""
    assert stderr.startswith("qwd: error: "), stderr
    assert stderr.count("\n") == 1, stderr
    assert stderr[:-1].isprintable()
    assert len(stderr) < 1100
    assert "Traceback" not in stderr


def check_refused(name: str, option: str, value: str, run) -> None:
    """That a value is refused with the words for it, or taken where any text is right."""
    code, stderr = run(arguments(name, option, value))
    if option in FREE and value.strip():
        assert code in (0, 2, 3, 4), stderr
        if code:
            check_line(stderr)
        return
    assert code == 2, (value[:50], stderr)
    check_line(stderr)
    assert option in stderr
    assert repr(value)[1:20] in stderr, stderr
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(("name", "option"), CASES)
def test_a_value_that_is_nothing(name: str, option: click.Option, run) -> None:
    for value in ("", NOWHERE):
        check_refused(name, option.opts[-1], value, run)


@pytest.mark.long
@pytest.mark.parametrize(("name", "option"), CASES)
def test_values_that_are_no_number_or_list(name: str, option: click.Option, run) -> None:
    for value in (*NO_NUMBERS, *NO_LISTS, *HUGE):
        check_refused(name, option.opts[-1], value, run)


@pytest.mark.long
@pytest.mark.parametrize(("name", "option"), CASES)
def test_the_installed_command_says_the_same(
    name: str, option: click.Option, tmp_path: Path
) -> None:
    if option.opts[-1] in FREE:
        return
    done = qwd(*arguments(name, option.opts[-1], NOWHERE), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    check_line(done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_given_twice(name: str, run) -> None:
    for option in (option for command, option in options() if command == name):
        text = option.opts[-1]
        code, stderr = run(arguments(name, text, "7", "7"))
        assert (code, f"{text} '7': given 2 times, expected once" in stderr) == (2, True), stderr
        check_line(stderr)


def test_a_flag_and_its_contrary(run) -> None:
    code, stderr = run(["train", "--print-config", "--amp", "--no-amp"])
    assert (code, stderr) == (2, "qwd: error: --amp: given 2 times, expected once\n")


CONTRADICTIONS = {
    "export absent.pt --repetitions 3": "--repetitions '3': belongs to --benchmark",
    "export absent.pt --batch-size 3": "--batch-size '3': belongs to --benchmark",
    "export absent.pt --benchmark --batch-size 3,3": "a list without duplicates",
    "quantize-report absent.pt --bits 4,4": "a list without duplicates",
    "quantize-report absent.pt --sensitivity-n 5": "belongs to --sensitivity",
    "quantize-report a.pt a.pt": "a.pt is given twice",
    "quantize-report a.pt --json x --csv x": "--csv 'x': expected another place than that of",
    "quantize-report a.pt --json - --md -": "--md -: only one of them can be",
    "quantize-report a.pt --json ./a.pt": "--json './a.pt': expected another place than what",
    "compare a b --md b": "--md 'b': expected another place than what is read",
    "dose --csv x --json ./x": "expected another place than that of",
    "find-lr --plot x.png --json x.png": "expected another place than that of --plot 'x.png'",
    "sweep --wd 1e-4 --mean 1 --print-config": "--mean and --std go together",
    "sweep --lr-every 9 --print-config": "--lr-every 9: belongs to --lr-schedule step",
    "sweep --cell x --dry-run": "--cell 'x'",
    "sweep --html x --dry-run": "--html: --print-config and --dry-run report nothing",
    "sweep --html x --search 3": "--html x: belongs to a grid, not to --search",
    "sweep --backend onx --print-config": "--backend 'onx'",
    "train --device cuda:x": "--device 'cuda:x': expected auto, cpu, cuda or cuda:N",
    "train --qat --amp": "--amp",
    "train --lr-schedule step --lr-power 2": "--lr-power 2: belongs to",
    "dose --wd 1e-4,1e-4": "none of them twice",
    "cross-validate --wd 1e-4 --folds 1": "--folds '1': expected a whole number",
    "find-lr --from 1 --to 0.5": "--to 0.5: expected a rate greater than --from 1",
    "list models data": "unexpected extra argument",
    "compare a b --fail-on range:+5% --fail-on range:+5%": "given 2 times",
    "compare a b --fail-on range:+nan": "is no limit",
    "compare a b --fail-on range:+1e400": "is no limit",
}


@pytest.mark.parametrize("command", CONTRADICTIONS)
def test_options_that_contradict_each_other(command: str, run) -> None:
    code, stderr = run(command.split())
    assert code == 2, stderr
    check_line(stderr)
    assert CONTRADICTIONS[command] in stderr
    assert list(Path.cwd().iterdir()) == []


def outputs() -> list[tuple[str, str]]:
    """Every option that names a file to write, and its command."""
    return [(name, o.opts[-1]) for name, o in options() if o.metavar == "PATH"]


@pytest.mark.parametrize(("name", "option"), outputs())
def test_places_where_no_file_can_be_written(name: str, option: str, run) -> None:
    Path("folder.png").mkdir()
    Path("file").touch()
    code, stderr = run(arguments(name, option, "folder.png"))
    assert (code, f"{option} 'folder.png': expected a file" in stderr) == (2, True), stderr
    for place in ("file/x.png", "n" * 300 + ".png"):
        code, stderr = run(arguments(name, option, place))
        assert (code, "qwd: error: cannot write" in stderr) == (4, True), stderr
        check_line(stderr)
    assert sorted(os.listdir()) == ["file", "folder.png"]


@pytest.mark.parametrize("name", ["quantize-report", "export"])
def test_a_variable_is_called_by_its_name(name: str, run, monkeypatch) -> None:
    monkeypatch.setenv("QWD_DEVICE", "tpu")
    code, stderr = run(arguments(name, "--key", "x"))
    assert (code, "QWD_DEVICE 'tpu': expected auto, cpu" in stderr) == (2, True), stderr
