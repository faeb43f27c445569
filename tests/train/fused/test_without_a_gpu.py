"""What would fail on a GPU, found on a machine without one."""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qwd.train import seeding
from qwd.train.devices import without_tf32
from qwd.train.fused import compiling, gradients, memory
from qwd.train.fused.memory import replicas_that_fit
from qwd.train.fused.program import Program
from qwd.train.fused.tracing import UNREADABLE
from tests.train.fused.networks import HERE, apart, made

META = torch.device("meta")
"""a device that is not the CPU, and whose tensors have no elements"""
ATEN = torch.ops.aten
CHANGES: list[dict[str, Any]] = [{"wd": wd, "seed": seed} for wd in (0.0, 1e-2) for seed in (0, 1)]
SETTINGS: list[dict[str, Any]] = [
    {"model": f"{HERE}:cnn", "nesterov": True, "form": "decoupled"},
    {"model": f"{HERE}:partly", "augment": "crop-flip"},
    {"model": f"{HERE}:perceptron", "optimizer": "adamw", "form": "l1"},
    {"model": f"{HERE}:perceptron", "optimizer": "rmsprop", "lr": 1e-4, "form": "independent"},
]

pytestmark = pytest.mark.usefixtures("recorded")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations are, as those of torch's own modules."""
    monkeypatch.setattr(gradients, "known", lambda network: True)


class Elsewhere(TorchDispatchMode):
    """`META` as if it had elements, all of them zero, which nothing on the CPU may be mixed with.

    While ``alone``, as within a CUDA graph, none may cross over either.
    """

    alone = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        devices = {tensor.device for tensor in tensors}
        if func is ATEN._to_copy.default:
            devices.add(kwargs.get("device") or args[0].device)
        asks = META in devices and any(tag in func.tags for tag in UNREADABLE)
        if len(devices) > 1 or asks:
            assert not self.alone, f"{func} waits for the other side"
            assert asks or func in (ATEN.copy_.default, ATEN._to_copy.default), f"{func} mixes"
        if func is ATEN._local_scalar_dense.default and asks:
            return 0
        if func is ATEN.equal.default and asks:
            return True
        if func is ATEN._to_copy.default and args[0].is_meta and devices != {META}:
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        return func(*args, **kwargs)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Elsewhere]:
    """Computes on `META`; audits, which look at elements, find nothing."""
    plain = Tensor.tolist
    listed = lambda t: plain(torch.zeros(t.shape, dtype=t.dtype) if t.is_meta else t)  # noqa: E731
    monkeypatch.setattr(Tensor, "tolist", listed)
    found = SimpleNamespace(check=lambda: None)
    monkeypatch.setattr("qwd.train.session.decay.audit", lambda *of: found)
    with Elsewhere() as mode:
        yield mode


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_program_stays_on_its_device(settings: dict[str, Any], elsewhere: Elsewhere) -> None:
    sessions = made({"epochs": 1, **settings}, CHANGES, device=META)
    assert replicas_that_fit(sessions[0]) > 0
    running = Program(sessions)
    assert running.records
    running.run(1)
    running.write_back()
    state = [session.state() for session in sessions]
    assert {t.device for each in state for t in each["model"].values()} == {META}
    copies = running.step._copies()
    with torch.no_grad():
        elsewhere.alone = True
        running.step._plain(copies, *running.example)


def test_a_program_in_bfloat16_needs_the_memory_of_its_check_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "free", lambda device: 1 << 40)
    base = {"epochs": 1, "model": "small_cnn"}
    plain, rounded = (made({**base, "amp": amp}, CHANGES[:1])[0] for amp in (False, True))
    assert replicas_that_fit(rounded) == replicas_that_fit(plain) > 1000


class Graph(TorchDispatchMode):
    """Stands in for a CUDA graph: operations on given memory, which `replay` repeats.

    While they are noted nothing is changed that was there before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.replays = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        assert not any(tag in func.tags for tag in UNREADABLE), f"{func} asks for numbers"
        assert torch.Tag.nondeterministic_seeded not in func.tags, f"{func} is random"
        names = [a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
        if names:
            self.noted.append((func, args, kwargs, None))
            return kwargs.get(names[0], args[0])
        results = func(*args, **kwargs)
        if not any(result.alias_info for result in func._schema.returns):  # no view
            self.noted.append((func, args, kwargs, results))
        return results

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, places in self.noted:
            results = func(*args, **kwargs)
            for place, result in zip(tree_leaves(places), tree_leaves(results), strict=False):
                if isinstance(place, Tensor):
                    place.copy_(result)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU has graphs, and one stream."""
    one = SimpleNamespace(wait_stream=lambda other: None)
    for name, instead in {
        "Stream": lambda: one,
        "current_stream": lambda: one,
        "stream": lambda stream: contextlib.nullcontext(),
        "device": lambda device: contextlib.nullcontext(),
        "CUDAGraph": Graph,
        "graph": lambda graph, stream: graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, instead)


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("settings", [*SETTINGS, {"model": "small_cnn", "amp": True}], ids=str)
def test_a_replayed_step_is_the_same_step(settings: dict[str, Any]) -> None:
    plain, replayed = (made({"epochs": 2, **settings}, CHANGES) for _ in range(2))
    with seeding.reproducible(torch.device("cpu"), 1):
        Program(plain).run(2)
        running = Program(replayed)
        step = running.step
        given = step._plain, step.tensors, step._copies(), running.example
        step.replayed = compiling._Replayed(*given)
        running.run(2)
    graph: Any = step.replayed.graph
    assert graph.replays == 2 * (plain[0].steps_per_epoch - 1)  # all but the watched ones
    assert max(map(apart, replayed, plain)) == 0
    for one, other in zip(plain, replayed, strict=True):
        for name in ("train_loss", "train_accuracy", "validation_loss"):
            assert other.history[-1][name] == one.history[-1][name]


def test_a_step_that_cannot_be_a_graph_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: Any) -> Any:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    running = Program(made({"epochs": 1, "model": f"{HERE}:linear"}, CHANGES))
    monkeypatch.setattr(compiling, "_Replayed", failing)
    images: Any = SimpleNamespace(device=torch.device("cuda"))
    running.step.capture(images, *running.example[1:])
    assert running.step.replayed is None
    why = "operation not permitted when stream is capturing"
    assert running.step.notes == [f"its step is not in a CUDA graph: {why}"]


def test_convolutions_in_float32_are_still_cudnns() -> None:
    with without_tf32():
        assert torch.backends.cudnn.enabled
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.allow_tf32
