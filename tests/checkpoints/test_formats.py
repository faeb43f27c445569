"""What people publish still loads, to the last bit: both formats of torch.save, and safetensors."""

import io
import pickle
import random
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from qwd.checkpoints import read_pickle, read_safetensors, read_weights, write_weights
from qwd.errors import InputError
from qwd.train.models import build
from tests.checkpoints.making import (
    STATE,
    legacy,
    mapping,
    name,
    number,
    numbers,
    old_storage,
    same,
    saved,
    tensor,
    text,
)

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint8, torch.bool, torch.complex64, torch.uint16, torch.uint32, torch.uint64),
]


def every_dtype() -> dict[str, torch.Tensor]:
    """One tensor of each dtype, and shapes that are easily wrong."""
    torch.manual_seed(0)
    found = {str(dtype): (torch.rand(3, 4) * 4).to(dtype) for dtype in DTYPES}
    shapes = {"0-d": torch.tensor(1.5), "empty": torch.empty(0, 3), "one": torch.ones(1)}
    return found | shapes | {"nan": torch.tensor([float("nan"), float("inf"), -0.0])}


def test_every_dtype_in_files_of_torch(tmp_path: Path) -> None:
    state = every_dtype()
    assert same(read_weights(saved(tmp_path / "m.pt", state)), state)
    # Newer dtypes lie in untyped storages, which torch.load cannot read from the old format.
    old = {"_use_new_zipfile_serialization": False}
    newer = [name for name in state if "float8" in name or "uint16" in name]
    newer += ["torch.uint32", "torch.uint64"]
    typed = {name: tensor for name, tensor in state.items() if name not in newer}
    assert same(read_weights(saved(tmp_path / "old.pt", typed, **old)), typed)
    for kind in newer:
        with pytest.raises(InputError, match="torch does not read from the format before 1.6"):
            read_weights(saved(tmp_path / "new.pt", {"w": state[kind]}, **old))


def test_every_dtype_in_safetensors(tmp_path: Path) -> None:
    state = every_dtype()
    save_file(state, tmp_path / "theirs.safetensors", {"format": "pt"})
    write_weights(tmp_path / "ours.safetensors", state)
    for path in ("theirs", "ours"):
        assert same(read_weights(tmp_path / f"{path}.safetensors"), state)
    assert read_safetensors(tmp_path / "theirs.safetensors")[1] == {"format": "pt"}


@pytest.mark.parametrize("before", [False, True])
def test_torchvisions_networks(tmp_path: Path, before: bool) -> None:
    network = build("torchvision:mobilenet_v3_small", in_channels=3, image_size=32, num_classes=10)
    state = network.state_dict()
    path = saved(tmp_path / "m.pth", state, _use_new_zipfile_serialization=not before)
    assert same(read_weights(path), state)


@pytest.mark.parametrize("before", [False, True])
def test_training_state_beside_the_weights(tmp_path: Path, before: bool) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    steps = {
        "sgd": torch.optim.SGD(network.parameters(), 0.1, momentum=0.9),
        "adam": torch.optim.AdamW(network.parameters(), torch.tensor(0.1)),
    }
    for step in steps.values():
        step.zero_grad()
        network(torch.ones(2, 1, 5, 5)).sum().backward()
        step.step()
    schedules = [
        torch.optim.lr_scheduler.MultiStepLR(steps["sgd"], [3, 3, 9]),
        torch.optim.lr_scheduler.CosineAnnealingLR(steps["sgd"], 10),
        torch.optim.lr_scheduler.ReduceLROnPlateau(steps["sgd"]),
    ]
    content = {
        "epoch": 90,
        "arch": "resnet20",
        "best_prec1": torch.tensor(91.7),
        "state_dict": {f"module.{k}": v for k, v in network.state_dict().items()},
        "optimizers": {name: step.state_dict() for name, step in steps.items()},
        "schedules": [schedule.state_dict() for schedule in schedules],
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "rng": (torch.get_rng_state(), random.Random(0).getstate()),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "size": torch.Size([1, 2]),
        "history": [{"loss": 0.5, "name": None, "seen": 2**40, "big": 2**100, "done": True}],
        "counts": Counter(a=1),
        "order": OrderedDict(a=1),
        3: "a key that is a number",
    }
    path = saved(tmp_path / "m.th", content, _use_new_zipfile_serialization=not before)
    assert same(read_weights(path), network.state_dict())
    found = read_pickle(path)
    assert found.keys() == content.keys()
    for key in ("epoch", "schedules", "dtype", "size", "history", "counts", "order", "device"):
        assert found[key] == content[key]
    fresh = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    fresh.load_state_dict(found["optimizers"]["sgd"])


def test_tensors_that_share_or_are_views(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"a": whole, "tied": whole, "t": whole.t(), "part": whole[1:, ::2], "last": whole[-1]}
    found = read_weights(saved(tmp_path / "m.pt", state))
    assert same(found, state)
    assert found["a"].data_ptr() == found["tied"].data_ptr()
    assert not found["t"].is_contiguous()


def test_parameters_as_torch_0_1_wrote_them(tmp_path: Path) -> None:
    """As torchvision's oldest files: an OrderedDict of Parameters, made and then built."""
    made = tensor(old_storage(), grad=b"", hooks=b"", function="_rebuild_tensor")
    parameter = name("torch.nn.parameter", "Parameter") + made + b"\x85\x81"
    state = b"\x88\x89" + name("collections", "OrderedDict") + b")R\x87b"
    pairs = b"](](" + text("w") + parameter + state + b"ee"
    body = name("collections", "OrderedDict") + pairs + b"\x85R"
    content = legacy(body, {"0": (4, torch.arange(4.0).numpy().tobytes())})
    (tmp_path / "m.pth").write_bytes(content)
    found = read_weights(tmp_path / "m.pth")
    assert found["w"].tolist() == [0, 1, 2, 3]
    assert found["w"].requires_grad


def test_text_of_python_2(tmp_path: Path) -> None:
    old = b"U\x01w" + tensor(old_storage())
    (tmp_path / "m.pth").write_bytes(legacy(b"}(" + old + b"u", {"0": (4, bytes(16))}))
    assert list(read_weights(tmp_path / "m.pth")) == ["w"]


def test_an_archive_written_to_memory_or_under_any_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    (tmp_path / "a.bin").write_bytes(buffer.getvalue())
    assert same(read_weights(tmp_path / "a.bin"), STATE)
    for odd in ("b c.pt", "ü.pt", "x.tar.pth", ".pt.pt"):
        assert same(read_weights(saved(tmp_path / odd, STATE)), STATE)


def test_more_sizes_and_protocols(tmp_path: Path) -> None:
    state = {f"layer.{i}.weight": torch.full((i % 7,), float(i)) for i in range(2000)}
    assert same(read_weights(saved(tmp_path / "m.pt", state)), state)
    assert same(read_weights(saved(tmp_path / "3.pt", STATE, pickle_protocol=3)), STATE)
    with pytest.raises(InputError, match="its pickle is of protocol 4; expected 2"):
        read_weights(saved(tmp_path / "4.pt", STATE, pickle_protocol=4))


def test_what_is_no_plain_tensor_is_refused_by_name(tmp_path: Path) -> None:
    tagged = torch.ones(2)
    tagged.note = "an attribute"  # type: ignore[attr-defined]
    for content, words in (
        (torch.eye(3).to_sparse(), "a sparse tensor"),
        (torch.empty(2, device="meta"), "a meta tensor, which has no values"),
        (tagged, "a tensor of a subclass or with attributes"),
        (nn.Linear(2, 2), r"a whole pickled module \(torch.nn.modules.linear.Linear\)"),
        (torch.ones(1).expand(5), "repeats a storage of 4 bytes"),
        (torch.ones(2, dtype=torch.cfloat).conj(), "conjugated"),
        ({1, 2}, "an object of __builtin__.set"),
        (pickle.PickleBuffer, "an object of pickle.PickleBuffer"),
    ):
        with pytest.raises(InputError, match=words):
            read_weights(saved(tmp_path / "m.pt", {"w": torch.ones(2), "x": content}))


def test_numbers_of_an_old_file_by_hand(tmp_path: Path) -> None:
    body = mapping(w=tensor(old_storage(numel=6), offset=1, shape=(2, 2), strides=(2, 1)))
    content = legacy(body, {"0": (6, torch.arange(6.0).numpy().tobytes())})
    (tmp_path / "m.pth").write_bytes(content)
    assert read_weights(tmp_path / "m.pth")["w"].tolist() == [[1, 2], [3, 4]]
    assert number(255) == b"\x8a\x02\xff\x00"
    assert numbers(()) == b"(t"
