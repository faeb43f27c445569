"""A sweep of a thousand cells: listed, resumed and reported."""

import json
import os
from pathlib import Path

from qwd.report.load import load_report, parse
from qwd.sweep import Given, begin, cells_of
from qwd.sweep.opening import found_of, open_sweep
from qwd.sweep.session import sweep
from tests.sweep.small import Here, asked

THOUSAND = {"wd": "1e-6..1e-2:10", "seeds": 100}


def thousand(source: Path, folder: Path) -> None:
    """A finished sweep whose cells are copies of one, each with its own settings."""
    design = begin(asked(**THOUSAND))
    report = json.loads((source / "report.json").read_text())
    (model,) = report["models"]
    folder.mkdir()
    (folder / "sweep.yaml").write_text(design.to_yaml())
    for number, cell in enumerate(cells_of(design)):
        made = folder / "cells" / cell.id
        made.mkdir(parents=True)
        for name in ("model.safetensors", "metrics.csv"):
            os.link(source / name, made / name)
        (made / "config.yaml").write_text(cell.config.to_yaml())
        model |= {"name": cell.id, "path": str(made), "seed": cell.seed}
        model |= {"config": cell.config.to_dict(), "dose": 100 * cell.config.wd}
        model["summary"]["range"] = 1 + cell.seed / 100 + number % 10 / 10
        (made / "report.json").write_text(json.dumps(report))


def test_a_thousand_cells_are_listed_resumed_and_reported(tmp_path: Path, here: Here) -> None:
    sweep(asked(wd=1e-2, seeds=1), out=tmp_path / "one")
    folder = tmp_path / "many"
    thousand(tmp_path / "one" / "cells" / "wd0.01-s0", folder)
    found = found_of(open_sweep(Given(), folder, True))
    assert sum(each.ended for each in found.values()) == 1000
    here.computed.clear()
    (folder / "cells" / "wd0.01-s7" / "report.json").write_text("half")
    done = sweep({}, out=folder, resume=True)
    assert here.computed == ["wd0.01-s7"]
    assert len(done.models) == 1000
    assert len(parse((folder / "report.json").read_bytes())["models"]) == 1000
    assert load_report(folder / "cells" / "wd0.01-s7").models[0].name == "wd0.01-s7"
    assert done.report is not None
    assert done.report.verdict is not None
    assert {c.seeds for s in done.report.verdict.settings for c in s.contrasts} == {
        tuple(range(100))
    }
