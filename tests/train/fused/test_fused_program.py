"""Replicas in one program: the weights, figures and checkpoints of ordinary training."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from qwd.errors import DivergedError
from qwd.train import seeding
from qwd.train.compiler import obstacle_to_compiling
from qwd.train.fused import compiling, gradients, program
from qwd.train.fused.program import NotCarriedError, Program, SeedsApartError
from qwd.train.fused.recorded import Recorded
from qwd.train.session import Session
from tests.train.fused.networks import CPU, HERE, apart, distance, made, trained_alone

SEEDS: list[dict[str, Any]] = [{"wd": wd, "seed": seed} for wd in (0.0, 1e-2) for seed in (0, 1)]
FORMS: list[dict[str, Any]] = [
    {"wd": 1e-2},
    {"wd": 1e-2, "form": "decoupled", "lr": 0.03},
    {"wd": 1e-4, "form": "independent", "seed": 1},
    {"wd": 1e-3, "form": "l1", "momentum": 0.5, "lr_schedule": "step"},
    {"form": "none", "warmup": 1},
    {"wd": 1e-2, "wd_schedule": "linear", "decay_bias": True},
]


def trained(base: dict[str, Any], changes: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    """The same trainings one by one and together."""
    alone, together = made(base, changes, Session), made(base, changes)
    trained_alone(alone)
    with seeding.reproducible(CPU, 1):
        running = Program(together)
        running.run(alone[0].config.epochs)
        running.write_back()
    return alone, together


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"model": f"{HERE}:cnn"}, SEEDS),
        ({"model": f"{HERE}:perceptron"}, FORMS),
        ({"model": f"{HERE}:perceptron", "nesterov": True}, FORMS[:2]),
        ({"model": f"{HERE}:perceptron", "momentum": 0}, SEEDS),
        ({"model": f"{HERE}:perceptron", "optimizer": "adamw"}, SEEDS),
        ({"model": f"{HERE}:perceptron", "optimizer": "adam"}, FORMS[:4]),
        ({"model": f"{HERE}:perceptron", "optimizer": "rmsprop", "lr": 1e-4}, SEEDS),
        ({"model": f"{HERE}:perceptron", "augment": "crop-flip", "depth_lr": 0.5}, SEEDS),
        ({"model": f"{HERE}:perceptron", "form": "decoupled", "lr_corrected": "weight"}, SEEDS),
        ({"model": f"{HERE}:partly"}, SEEDS),
        ({"model": f"{HERE}:alike", "decay_bias": True, "lr": 0.01}, [*SEEDS, *FORMS[2:4]]),
        ({"model": f"{HERE}:with_dropout"}, SEEDS[::2]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_weights_are_those_of_ordinary_training(
    settings: dict[str, Any], changes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the operations of torch's own modules are.
    monkeypatch.setattr(gradients, "known", lambda network: True)
    for one, other in zip(*trained({"epochs": 3, **settings}, changes), strict=True):
        # Adam and RMSprop divide by gradients near zero, which enlarges their last digits.
        assert apart(other, one) < (1e-9 if "optimizer" in settings else 1e-12)


@pytest.mark.parametrize("model", ["cnn", "alike", "with_dropout"])
def test_what_is_not_recorded_gives_the_same_weights(model: str) -> None:
    settings = {"epochs": 2, "model": f"{HERE}:{model}", "decay_bias": True, "lr": 0.01}
    for one, other in zip(*trained(settings, SEEDS[::2]), strict=True):
        assert apart(other, one) < 1e-12


def test_figures_are_those_of_ordinary_training() -> None:
    alone, together = trained({"epochs": 2, "model": f"{HERE}:cnn"}, [*SEEDS, *FORMS[1:4]])
    for one, other in zip(alone, together, strict=True):
        for expected, found in zip(one.history, other.history, strict=True):
            assert list(found) == list(expected)
            for name, value in expected.items():
                if value is None and name != "seconds":
                    assert found[name] is None, name
                elif name != "seconds":
                    assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
            assert found["seconds"] > 0


def test_float32_stays_close_for_a_short_time() -> None:
    alone, together = trained({"epochs": 2, "model": "mlp"}, SEEDS)
    assert max(map(apart, together, alone)) < 1e-3


# torch has no rule for attention on a CPU under vmap, and goes through the replicas.
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
# Nor has it an RMSNorm of bfloat16 with float32 weights in one pass.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("mlp", SEEDS),
        ("small_cnn", SEEDS),
        ("vit", SEEDS[:2]),
        ("resnet20", SEEDS[:2]),
        (f"{HERE}:normalised", SEEDS[::2]),
    ],
)
def test_in_bfloat16_weights_differ_by_its_rounding_alone(
    model: str, changes: list[dict[str, Any]]
) -> None:
    base = {"epochs": 1, "model": model, "data": f"{HERE}:few", "amp": True}
    exact = made({**base, "amp": False}, changes, Session)
    trained_alone(exact)
    for plain, one, other in zip(exact, *trained(base, changes), strict=True):
        rounding = distance(plain, one)
        assert rounding / 10 < distance(plain, other) < gradients.ROUNDINGS * rounding
        assert distance(other, one) < gradients.ROUNDINGS * rounding
        assert {t.dtype for t in other.state()["model"].values()} <= {torch.float32, torch.int64}
        assert other.history[-1]["train_loss"] == pytest.approx(one.history[-1]["train_loss"], 0.01)


def test_recorded_casts_are_of_the_weights_at_hand() -> None:
    running = Program(made({"epochs": 1, "model": "small_cnn", "amp": True}, SEEDS[:2]))
    found, (images, labels, _) = running.gradients, running.example
    assert found.recorded is not None
    for _ in range(2):
        running.stack.weights.mul_(1.1)
        pairs = found.recorded(images, labels), found.compute(*found._standing(), images, labels)
        for recorded, expected in zip(*pairs, strict=True):
            assert recorded.dtype == expected.dtype != torch.bfloat16
            assert torch.equal(recorded, expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_checkpoint_goes_on_alone_and_together(optimizer: str) -> None:
    base = {"epochs": 4, "model": f"{HERE}:perceptron", "optimizer": optimizer}
    whole, first, rest = made(base, SEEDS, Session), made(base, SEEDS), made(base, SEEDS)
    lonely = made(base, SEEDS, Session)
    trained_alone(whole)
    with seeding.reproducible(CPU, 1):
        running = Program(first)
        running.run(2)
        running.write_back()
        for session, later, alone in zip(first, rest, lonely, strict=True):
            state = session.state()
            sizes = [t.untyped_storage().nbytes() for t in state["model"].values()]
            assert sizes == [t.nbytes for t in state["model"].values()]
            later.restore(state, "nowhere")
            alone.restore(state, "nowhere")
        going_on = Program(rest)
        going_on.run(4)
        going_on.write_back()
    trained_alone(lonely)
    for one, other, alone in zip(whole, rest, lonely, strict=True):
        assert apart(other, one) < 1e-9
        assert apart(alone, one) < 1e-9
        assert other.history[-1]["dose"] == pytest.approx(one.history[-1]["dose"])


def test_one_that_diverges_does_not_touch_its_neighbours() -> None:
    changes = [{"wd": 1e-3}, {"wd": 1e-3, "lr": 1e30}, {"wd": 0.0}]
    base = {"epochs": 2, "model": f"{HERE}:cnn"}
    alone, together = made(base, changes, Session), made(base, changes)
    with pytest.raises(DivergedError) as expected:
        trained_alone([alone[1]])
    trained_alone([alone[0], alone[2]])
    with seeding.reproducible(CPU, 1):
        running = Program(together)
        running.run(2)
        running.write_back()
    assert running.live == [True, False, True]
    assert str(running.errors[1]) == str(expected.value)
    for place in (0, 2):
        assert apart(together[place], alone[place]) < 1e-12
        assert math.isfinite(together[place].history[-1]["train_loss"])


def test_dropout_of_several_seeds_is_no_single_program() -> None:
    sessions = made({"epochs": 1, "model": f"{HERE}:with_dropout"}, SEEDS)
    with pytest.raises(SeedsApartError):
        Program(sessions)


def test_what_vmap_cannot_carry_is_said_before_anything_changes() -> None:
    sessions = made({"epochs": 1, "model": f"{HERE}:deciding"}, SEEDS)
    with pytest.raises(NotCarriedError, match="vmap fails: .*data-dependent"):
        Program(sessions)


@pytest.mark.parametrize("amp", [False, True])
def test_gradients_that_are_not_those_of_the_model_alone_are_refused(
    amp: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(Recorded):
        def __call__(self, *given: Tensor) -> list[Tensor]:
            return [1.1 * each for each in super().__call__(*given)]

    monkeypatch.setattr(gradients, "Recorded", Wrong)
    sessions = made({"epochs": 1, "model": "mlp", "amp": amp}, SEEDS[:2])
    with pytest.raises(NotCarriedError, match="not those of the model alone"):
        Program(sessions)


def test_a_compiled_step_is_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    if obstacle_to_compiling(CPU):
        pytest.skip("no C++ compiler")
    base = {"epochs": 2, "model": f"{HERE}:linear"}
    plain, compiled = made(base, SEEDS), made(base, SEEDS)
    with seeding.reproducible(CPU, 1):
        Program(plain).run(2)
        monkeypatch.setattr(program, "pays", lambda seconds: True)
        found = iter([2.0, 1.0])
        monkeypatch.setattr(compiling, "_timed", lambda step, given: next(found))
        running = Program(compiled)
        running.run(2)
    assert running.step.compiled is not None
    assert max(map(apart, compiled, plain)) < 1e-3


def test_without_a_compiler_steps_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(program, "pays", lambda seconds: True)
    monkeypatch.delenv("CXX", raising=False)
    running = Program(made({"epochs": 2, "model": f"{HERE}:linear"}, SEEDS[:2]))
    running.run(2)
    assert running.step.compiled is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("model", ["cnn", "partly"])
def test_a_gpu_gives_the_weights_of_ordinary_training_there(
    model: str, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = torch.device("cuda")
    if compiles and obstacle_to_compiling(gpu):
        pytest.skip("no Triton")
    monkeypatch.setattr(gradients, "known", lambda network: True)
    base = {"epochs": 2, "model": f"{HERE}:{model}", "device": "cuda"}
    alone, together = made(base, SEEDS, Session, gpu), made(base, SEEDS, device=gpu)
    trained_alone(alone, gpu)
    with seeding.reproducible(gpu, 1):
        running = Program(together)
        captured = running.step.replayed
        assert captured is not None
        if compiles:
            found = iter([2.0, 1.0])
            monkeypatch.setattr(compiling, "_timed", lambda step, given: next(found))
            assert running.step.compile(*running.example)
            running.step.capture(*running.example)
            assert running.step.replayed is not captured
        running.run(2)
        running.write_back()
    assert max(map(apart, together, alone)) < 1e-9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("model", ["mlp", "small_cnn"])
def test_a_gpu_captures_steps_in_bfloat16(model: str) -> None:
    gpu = torch.device("cuda")
    base = {"epochs": 1, "model": model, "device": "cuda", "amp": True}
    exact = made({**base, "amp": False}, SEEDS, Session, gpu)
    alone, together = made(base, SEEDS, Session, gpu), made(base, SEEDS, device=gpu)
    trained_alone([*exact, *alone], gpu)
    with seeding.reproducible(gpu, 1):
        running = Program(together)
        assert running.step.replayed is not None
        running.run(1)
        running.write_back()
    for plain, one, other in zip(exact, alone, together, strict=True):
        assert distance(other, one) < gradients.ROUNDINGS * distance(plain, one)
