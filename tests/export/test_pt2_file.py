""".pt2 files: what they hold, what they say of their weights, and that they run elsewhere."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from qwd.errors import VerificationError
from qwd.export.formats import FORMATS, scheme_for
from qwd.export.latency import latencies
from qwd.export.pt2_file import Pt2File
from qwd.quantize.arithmetic import quantize as grid
from qwd.quantize.backend import quantize
from qwd.train.data import load


@pytest.fixture(scope="module")
def program() -> Pt2File:
    torch.manual_seed(0)
    head = nn.Flatten(), nn.Linear(256, 10, bias=False)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), *head).eval()
    scheme = scheme_for(FORMATS["pt2"], None)
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return Pt2File(quantize(model, scheme, [images]), model, scheme, images)


def test_grids_are_the_files_and_the_arithmetics(program: Pt2File) -> None:
    said = program.grids()
    assert set(said) == {"0.weight", "3.weight"}
    stored = torch.export.load(io.BytesIO(program.content({})))
    scales = [t for name, t in stored.state_dict.items() if "scale" in name]
    for name, entry in said.items():
        own = grid(program.network.get_parameter(name), kind="symmetric", axis=0)
        assert any(torch.equal(torch.tensor(entry["scale"]), scale) for scale in scales)
        # torchao rounds its scale once more than the arithmetic of qwd does.
        assert entry["scale"] == pytest.approx(own.scale.tolist(), rel=1e-6)
        assert entry["zero_point"] == [0] * len(own.scale)
        assert entry["axis"] == 0


def test_codes_take_the_place_of_float_weights(program: Pt2File) -> None:
    stored = torch.export.load(io.BytesIO(program.content({}))).state_dict
    integers = [tuple(t.shape) for t in stored.values() if t.dtype == torch.int8]
    assert sorted(integers) == [(4, 1, 3, 3), (10, 256)]
    assert all(t.ndim < 2 for t in stored.values() if t.is_floating_point())
    # The network given keeps its own.
    assert program.network.get_parameter("0.weight").is_floating_point()


def test_a_process_with_torch_and_torchao_alone_runs_it(program: Pt2File, tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(program.content({"wd": "0.0001", "scheme": "symmetric"}))
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    torch.save(images, tmp_path / "images.pt")
    code = (
        "import sys\nsys.modules['qwd'] = None\n"
        "import json, torch\nimport torchao.quantization.pt2e\n"
        "facts = {'qwd.json': ''}\n"
        "program = torch.export.load('net.pt2', extra_files=facts)\n"
        "assert json.loads(facts['qwd.json']) == {'wd': '0.0001', 'scheme': 'symmetric'}\n"
        "torch.save(program.module()(torch.load('images.pt')), 'logits.pt')\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "logits.pt")
    assert torch.equal(found, program.made(images))
    assert not torch.equal(found, program.network(images))


def test_what_is_read_back_is_the_quantized_network_for_any_batch(program: Pt2File) -> None:
    network = program.reopened(program.content({})).eval()
    for n in (1, 3):
        images = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(n))
        assert torch.equal(network(images), program.made(images))


def test_what_cannot_be_loaded_is_not_written(program: Pt2File) -> None:
    for content in (b"", program.content({})[:1000]):
        with pytest.raises(VerificationError, match="torch.export cannot load the file"):
            program.reopened(content)


def test_nothing_of_this_machine_is_in_the_file(program: Pt2File) -> None:
    for content in (program.content({"model": "net"}), program.float_content()):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            everything = b"".join(archive.read(name) for name in archive.namelist())
        assert str(Path(__file__).parent).encode() not in everything
        assert b"site-packages" not in everything
    assert b'"qwd_export"' in program.content({"qwd_export": "1"})
    assert json.dumps({"a": "b"}).encode() in program.content({"a": "b"})


def test_latencies_are_of_float_and_of_the_graph(program: Pt2File) -> None:
    measured = latencies(program, program.content({}), load("digits").train, (2,), repetitions=1)
    assert "Inductor" in measured.note
    ((plain, file),) = [latency.timed for latency in measured.latencies]
    assert (plain.name, file.name) == ("torch float32, eager", program.timed)
    assert plain.seconds.median > 0
    assert file.ratio.median == 1
