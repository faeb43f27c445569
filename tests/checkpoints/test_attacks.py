"""Nothing in a file is run: every attack is refused in one line, and no canary is touched."""

import subprocess
import sys
from pathlib import Path

import pytest

from qwd.checkpoints import read_weights
from qwd.errors import InputError
from tests.checkpoints.attacks import call_pickle, forms, functions
from tests.checkpoints.making import checkpoint
from tests.commands import qwd


def written(folder: Path, canary: Path) -> dict[str, Path]:
    """The file of every attack that would make ``canary``, by what it is."""
    found = {}
    for what, call in functions(canary).items():
        found[what] = folder / f"{what}.pt"
        found[what].write_bytes(checkpoint(call_pickle(call)))
    for number, (what, content) in enumerate(forms(canary)):
        found[what] = folder / f"{number}{what.split()[0]}"
        found[what].write_bytes(content)
    return found


def test_no_attack_runs_and_each_is_refused_in_one_line(tmp_path: Path, capfd) -> None:
    canary = tmp_path / "canary"
    attacks = written(tmp_path, canary)
    assert len(attacks) >= 90
    for what, path in attacks.items():
        with pytest.raises(InputError) as caught:
            read_weights(path)
        message = str(caught.value)
        assert message.startswith(f"cannot read {path}"), what
        assert "\n" not in message, what
        assert "weights_only" not in message, what
        assert not canary.exists(), what
    assert capfd.readouterr() == ("", "")


def test_the_attacks_work_where_nothing_protects(tmp_path: Path) -> None:
    what = list(functions(tmp_path))
    for function in what:
        call = functions(tmp_path / f"canary {function}")[function]
        (tmp_path / f"{function}.pkl").write_bytes(call_pickle(call))
    program = (
        "import pickle, sys, contextlib\n"
        "for path in sys.argv[1:]:\n"
        "    with contextlib.suppress(Exception):\n"
        "        pickle.load(open(path, 'rb'))\n"
    )
    files = [str(path) for path in sorted(tmp_path.glob("*.pkl"))]
    subprocess.run([sys.executable, "-c", program, *files], check=True, timeout=120)
    assert {path.name for path in tmp_path.glob("canary *")} == {f"canary {name}" for name in what}


def test_the_command_refuses_attacks(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    attacks = written(tmp_path, canary)
    for what in ("os.system", ".pt tar and legacy"):
        done = qwd("quantize-report", attacks[what], cwd=tmp_path)
        assert done.returncode == 3, what
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith(f"qwd: error: cannot read {attacks[what]} ")
        assert not canary.exists()
