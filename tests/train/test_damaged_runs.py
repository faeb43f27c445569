"""Run folders whose table of epochs is damaged or made up."""

from pathlib import Path

import pytest

from qwd.config import TrainConfig
from qwd.errors import InputError
from qwd.train.run import read_run

WRONG = {
    "nothing": ("", "holds no epoch"),
    "a header alone": ("epoch,loss\n", "holds no epoch"),
    "words": ("epoch,loss\none,two\n", "could not convert"),
    "more cells than names": ("epoch\n1,2,3\n", "cannot read"),
    "a cell without end": ("epoch\n" + "1" * 200_000 + "\n", "field larger than field limit"),
    "zero bytes": ("epoch\n\0\n", "cannot read"),
    "a best epoch that is not there": (
        "epoch,best_epoch\n1,7\n",
        "best_epoch 7.0 is none of its 1",
    ),
    "a best epoch between": ("epoch,best_epoch\n1,0.5\n", "best_epoch 0.5"),
    "a best epoch without end": ("epoch,best_epoch\n1,inf\n", "best_epoch inf"),
    "no number": ("epoch,best_epoch\n1,nan\n", "best_epoch nan"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_table_that_is_wrong_is_refused(what: str, tmp_path: Path) -> None:
    content, words = WRONG[what]
    (tmp_path / "config.yaml").write_text(TrainConfig(early_stop=2).to_yaml())
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        read_run(tmp_path)
    assert "metrics.csv" in str(caught.value)
    assert "\n" not in str(caught.value)
