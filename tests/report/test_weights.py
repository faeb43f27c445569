"""Reports of checkpoints without their class, held against those of the network."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from qwd.errors import UsageError
from qwd.quantize.folding import deploy
from qwd.quantize.statistics import weight_figures
from qwd.report.entry import report
from qwd.report.figures import ModelReport, Report
from qwd.report.load import parse, read_as, validate
from qwd.report.render import json as as_json
from qwd.report.render import text
from qwd.train.models import build


def network(name: str = "resnet20") -> nn.Module:
    torch.manual_seed(0)
    model = build(name, in_channels=3, image_size=32, num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 2.0)
            module.running_mean.normal_()
            module.running_var.uniform_(0.1, 3.0)
    return model.eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    state = network().state_dict()
    save_file(state, folder / "net.safetensors")
    torch.save({"state_dict": state}, folder / "net.pth")
    return {path.suffix: path for path in folder.iterdir()}


def one(path: Path, **options) -> ModelReport:
    (model,) = report(path, **options).models
    return model


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_gives_the_figures_of_the_network(files: dict[str, Path], suffix: str):
    (known,) = report(network()).models
    found = one(files[suffix])
    assert found.summary == known.summary
    assert found.parameters == known.parameters
    by_name = {t.name: t for t in known.tensors}
    assert {t.name for t in found.tensors} == set(by_name)
    for tensor in found.tensors:
        assert tensor == by_name[tensor.name]
    assert found.vectors == known.vectors
    assert found.summary.folded_range is not None
    assert any("1e-05 is assumed for 19 BatchNorms, --bn-eps" in w for w in found.warnings)


def test_eps_is_what_was_said(files: dict[str, Path]):
    model = network()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.1
    folded = dict(deploy(model).module.named_parameters())
    found = one(files[".pth"], bn_eps=0.1, matching=r"^conv1\.")
    (tensor,) = found.tensors
    assert tensor.folded == weight_figures(folded["conv1.weight"])
    assert any("0.1 is assumed" in w for w in found.warnings)
    assert any("1 of 20 weights match --filter" in w for w in found.warnings)


def test_channels_and_kinds(files: dict[str, Path]):
    found = one(files[".pth"])
    first, last = found.tensors[0], found.tensors[-1]
    assert (first.kind, first.norm, last.kind, last.norm) == ("convolution", "bn1", "linear", None)
    assert first.channels is not None
    assert first.folded_channels is not None
    assert last.folded_channels is None
    assert first.channels.channels == 16
    assert first.folded_channels.gain_db == pytest.approx(
        first.folded_channels.sqnr_db - first.folded.sqnr_db  # type: ignore[union-attr, operator]
    )
    assert {v.kind: v.tensors for v in found.vectors} == {"bias": 1, "norm": 38, "statistics": 57}


def test_an_open_pair_leaves_the_means_out_and_says_so(tmp_path: Path):
    torch.manual_seed(0)
    parts = {f"convs.{i}": nn.Conv2d(4, 4, 3) for i in range(2)}
    parts |= {f"bns.{i}": nn.BatchNorm2d(4) for i in range(2)}  # type: ignore[dict-item]
    state = {f"{n}.{k}": t for n, m in parts.items() for k, t in m.state_dict().items()}
    torch.save(state, tmp_path / "open.pt")
    found = one(tmp_path / "open.pt")
    assert found.summary.folded_range is None
    assert any(w.startswith("not folded: bns.0, bns.1:") for w in found.warnings)
    assert any("2 BatchNorms are in no pair" in w for w in found.warnings)
    stated = one(tmp_path / "open.pt", fold=[r"convs.(\d)=bns.\1"])
    assert stated.summary.folded_range is not None
    with pytest.raises(UsageError, match=r"--fold 'x=bns.0': matches no layer"):
        report(tmp_path / "open.pt", fold=["x=bns.0"])


def test_tied_weights_are_counted_once_and_named(tmp_path: Path):
    shared = torch.randn(20, 8)
    torch.save(
        {"tok.weight": shared, "head.weight": shared, "fc.weight": shared.T}, tmp_path / "t.pt"
    )
    found = one(tmp_path / "t.pt")
    assert [t.name for t in found.tensors] == ["tok.weight", "fc.weight"]
    assert found.parameters == 2 * 160  # a view of another shape is a weight of its own
    assert "head.weight is the tensor of tok.weight again: it is listed and counted once" in (
        found.warnings
    )


def test_dead_channels_are_named(tmp_path: Path):
    model = network()
    with torch.no_grad():
        model.get_parameter("conv1.weight")[[2, 5]] = 0
    torch.save(model.state_dict(), tmp_path / "dead.pt")
    expected = "conv1.weight: 2 of 16 channels are all zero (2, 5)"
    found = one(tmp_path / "dead.pt")
    assert expected in found.warnings
    assert found.tensors[0].channels.dead_channels == (2, 5)  # type: ignore[union-attr]
    assert expected in report(model).models[0].warnings


@pytest.mark.parametrize("norm", [torch.float32, torch.float8_e5m2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_short_floats_are_folded_in_float32(dtype: torch.dtype, norm: torch.dtype, tmp_path: Path):
    torch.manual_seed(0)
    state = {"conv.weight": torch.randn(16, 3, 3, 3).to(dtype)}
    for name in ("weight", "bias", "running_mean", "running_var"):
        state[f"bn.{name}"] = (torch.rand(16) - 0.3 * (name == "running_mean")).to(norm)
    state["bn.running_var"][2] = 0
    save_file(state, tmp_path / "short.safetensors")
    found = one(tmp_path / "short.safetensors")
    variance = state["bn.running_var"].double().numpy() + 1e-5
    factor = state["bn.weight"].double().numpy() / variance**0.5
    exact = state["conv.weight"].double().numpy() * factor.reshape(-1, 1, 1, 1)
    folded = found.tensors[0].folded
    assert folded is not None
    assert folded.range == pytest.approx(exact.max() - exact.min(), rel=1e-6)
    assert folded.std == pytest.approx(exact.std(), rel=1e-6)
    assert any("conv: 1 channels have no variance" in line for line in found.warnings)


def test_vectors_in_more_dimensions_are_no_weights(tmp_path: Path):
    shapes = {"block.layer_scale": (8, 1, 1), "cls_token": (1, 1, 8), "conv.bias": (1, 8, 1, 1)}
    weights = {"head.weight": (1, 8), "conv.weight": (8, 1, 1, 1), "pos_embed": (1, 5, 8)}
    save_file(
        {n: torch.randn(s) for n, s in (shapes | weights).items()}, tmp_path / "net.safetensors"
    )
    found = one(tmp_path / "net.safetensors")
    assert {t.name for t in found.tensors} == weights.keys()
    assert [(v.kind, v.tensors) for v in found.vectors] == [("other", 2), ("bias", 1)]
    model = nn.Sequential(nn.Linear(4, 8))
    model.register_parameter("scale", nn.Parameter(torch.randn(8, 1, 1)))
    assert [t.name for t in report(model).models[0].tensors] == ["0.weight"]


def test_averages_beside_the_weights_are_named(tmp_path: Path):
    weights = {"conv.weight": torch.randn(8, 3, 3, 3), "semantic.weight": torch.randn(4, 8)}
    path = tmp_path / "net.ckpt"
    both = {"net": weights, "net_ema": {name: 0.9 * w for name, w in weights.items()}}
    torch.save({f"{part}.{n}": w for part, state in both.items() for n, w in state.items()}, path)
    (line,) = (w for w in one(path).warnings if "averages" in w)
    assert "2 of 4 weights, under net_ema., are averages" in line
    found = one(path, matching=line.split("'")[1])
    assert [t.name for t in found.tensors] == ["net.conv.weight", "net.semantic.weight"]
    assert not any("averages" in w for w in found.warnings)


def test_constant_channels_are_named_without_the_network(tmp_path: Path):
    model = network()
    model.get_buffer("bn1.running_var")[3] = 0
    torch.save(model.state_dict(), tmp_path / "still.pt")
    line = next(w for w in report(model).models[0].warnings if "no variance" in w)
    assert line.startswith("conv1: 1 channels have no variance")
    assert line in one(tmp_path / "still.pt").warnings


def test_large_weights_go_without_order_statistics(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("qwd.report.measuring.SMALL", 1000)
    found, full = one(files[".pth"]), one(files[".pth"], full=True)
    for tensor, whole in zip(found.tensors, full.tensors, strict=True):
        assert tensor.figures.crowding is None
        assert whole.figures.crowding is not None
        assert tensor.figures.sqnr_db == pytest.approx(whole.figures.sqnr_db, rel=1e-9)
    assert any("--full finds them" in w for w in found.warnings)
    assert not any("--full" in w for w in full.warnings)
    assert " - " in text.render(Report(models=(found,)), width=300)


def test_other_widths_in_one_go(files: dict[str, Path]):
    found = one(files[".pth"], bits=(8, 6, 4))
    for tensor in found.tensors:
        six, four = tensor.figures.widths
        assert (six.bits, four.bits) == (6, 4)
        assert tensor.figures.sqnr_db > six.sqnr_db > four.sqnr_db  # type: ignore[operator]
    page = text.render(Report(models=(found,)), width=300)
    assert "SQNR dB, 6 bits  SQNR dB, 4 bits" in page


def test_the_report_follows_its_schema_and_reads_back(files: dict[str, Path]):
    made = report(files[".pth"], bits=(8, 4))
    value = parse(as_json.render(made).encode())
    validate(value)
    again = read_as(Report, value)
    assert again.models[0].tensors == made.models[0].tensors
    assert again.models[0].vectors == made.models[0].vectors


def test_bytes_are_counted_to_the_end(files: dict[str, Path]):
    heard: list[tuple[int, int]] = []
    found = one(files[".pth"], on_bytes=lambda done, of: heard.append((done, of)))
    total = 4 * sum(t.figures.numel for t in found.tensors)
    assert (heard[0], heard[-1]) == ((0, total), (total, total))
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


@pytest.mark.parametrize("old", [True, False])
def test_parts_of_which_a_weight_is_computed_are_said_to_be_those(old: bool, tmp_path: Path):
    layer = nn.Linear(4, 3)
    if old:
        state = {"a.weight_g": torch.ones(3, 1), "a.weight_v": layer.weight.detach()}
    else:
        state = nn.utils.parametrizations.weight_norm(layer).state_dict()
    save_file(state, tmp_path / "net.safetensors")
    model = one(tmp_path / "net.safetensors")
    assert any("computes a weight" in warning for warning in model.warnings)
    assert model.summary.folded_range is None
