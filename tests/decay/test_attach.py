"""Decay around an optimizer's steps: schedules, closures, scaled gradients, resuming."""

import copy

import pytest
import torch
from torch import nn

from qwd import decay
from qwd.decay import forms, schedules
from qwd.errors import UsageError
from tests.decay.problems import idle, network, same, trajectory, with_decay

SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW


def parameter_under(form, *, wd=0.1, lr=0.5, schedule=schedules.constant, **entries):
    weight = nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = SGD([{"params": [weight], "decay": wd, **entries}], lr=lr)
    decay.attach(optimizer, form, schedule=schedule)
    return weight, optimizer


def test_removal_ends_the_decay() -> None:
    removed, again = network(5), network(5)
    optimizer = SGD(decay.param_groups(removed, 0.5, decay_bias=True), lr=0.1)
    for form in (forms.l2, forms.cautious):
        decay.attach(optimizer, form).remove()
    assert same(
        trajectory(removed, optimizer, 2), trajectory(again, SGD(again.parameters(), lr=0.1), 2)
    )


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda p: ADAMW([{"params": p, "decay": 1.0}]), "AdamW has a weight_decay of 0.01 of its"),
        (lambda p: torch.optim.ASGD([{"params": p, "decay": 1.0}]), "ASGD has a lambd of 0.0001"),
        (lambda p: SGD(p, lr=0.1), "no parameter group of this SGD has a 'decay'"),
    ],
)
def test_what_would_decay_twice_or_never_is_refused(made, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        decay.attach(made([nn.Parameter(torch.ones(2))]), forms.l2)


def test_a_second_decay_is_refused() -> None:
    _, optimizer = parameter_under(forms.l2)
    with pytest.raises(UsageError, match="has a decay attached already"):
        decay.attach(optimizer, forms.decoupled)


def test_the_coefficient_follows_its_schedule() -> None:
    schedule = schedules.piecewise({2: 0.5, 4: 0.0})
    weight, optimizer = parameter_under(forms.independent, wd=0.1, schedule=schedule)
    expected = 1.0
    for factor in (1, 1, 0.5, 0.5, 0, 0):
        idle(optimizer, 1)
        expected *= 1 - 0.1 * factor
        assert weight.item() == pytest.approx(expected, rel=1e-15)


def test_independent_decay_that_follows_the_rate() -> None:
    weight, optimizer = parameter_under(forms.independent, wd=0.1, schedule=schedules.proportional)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t))
    expected = 1.0
    for t in range(5):
        idle(optimizer, 1)
        scheduler.step()
        expected *= 1 - 0.1 / (1 + t)
    assert weight.item() == pytest.approx(expected, rel=1e-14)


def test_adamc_is_wd_times_the_square_of_the_rate_over_its_peak() -> None:
    weight, optimizer = parameter_under(forms.decoupled, wd=0.1, lr=0.5, lr_corrected=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t))
    expected = 1.0
    for t in range(5):
        idle(optimizer, 1)
        scheduler.step()
        expected *= 1 - 0.1 * (0.5 / (1 + t)) ** 2 / 0.5
    assert weight.item() == pytest.approx(expected, rel=1e-14)


def test_the_peak_of_a_one_cycle_schedule_is_its_max_lr() -> None:
    weight, optimizer = parameter_under(forms.independent, schedule=schedules.proportional)
    torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.5, total_steps=10, cycle_momentum=False, div_factor=10
    )
    idle(optimizer, 1)
    assert weight.item() == pytest.approx(1 - 0.1 / 10, rel=1e-14)


def test_a_state_dict_carries_the_place_in_the_schedule() -> None:
    schedule = schedules.linear(10)
    whole, optimizer = parameter_under(forms.independent, schedule=schedule)
    idle(optimizer, 8)
    cut, first = parameter_under(forms.independent, schedule=schedule)
    idle(first, 3)
    state = copy.deepcopy(first.state_dict())
    rest, second = parameter_under(forms.independent, schedule=schedule)
    rest.data = cut.data.clone()
    second.load_state_dict(state)
    idle(second, 5)
    assert rest.item() == whole.item()


@pytest.mark.parametrize("form", [forms.l2, forms.decoupled, forms.cautious, forms.proximal])
def test_a_closure_sees_the_same_decay(form) -> None:
    def final(by_closure: bool) -> list[torch.Tensor]:
        model = network(2)
        optimizer = with_decay(model, SGD, form, 0.1, lr=0.1, momentum=0.9)
        images = torch.randn(8, 5, generator=torch.Generator().manual_seed(3)).double()

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = model(images).square().mean()
            loss.backward()
            return loss

        for _ in range(4):
            if by_closure:
                assert optimizer.step(closure) is not None  # type: ignore[call-overload]
            else:
                closure()
                optimizer.step()
        return [p.detach() for p in model.parameters()]

    assert same(final(True), final(False))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("optimizer", [SGD, ADAM, ADAMW])
@pytest.mark.parametrize("form", [forms.l2, forms.l1, forms.decoupled, forms.cautious])
def test_scaled_gradients_are_decayed_as_unscaled_ones(form, optimizer, fused: bool) -> None:
    """With torch's GradScaler, which leaves unscaling to fused optimizers."""

    def final(scaled: bool) -> list[torch.Tensor]:
        model = network(7, torch.float32)
        made = with_decay(model, optimizer, form, 0.1, lr=0.05, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
        for step in range(6):
            images = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
            made.zero_grad()
            scaler.scale(model(images).square().mean()).backward()
            if scaled and step == 3:  # overflow: the step is skipped
                next(model.parameters()).grad.fill_(float("inf"))  # type: ignore[union-attr]
            if scaled or step != 3:
                scaler.step(made)
            scaler.update()
        return [p.detach() for p in model.parameters()]

    for ours, plain in zip(final(True), final(False), strict=True):
        torch.testing.assert_close(ours, plain, rtol=2e-6, atol=1e-7)


def test_bfloat16_autocast_leaves_the_decay_in_float32() -> None:
    model, reference = network(8, torch.float32), network(8, torch.float32)
    ours = with_decay(model, SGD, forms.l2, 0.1, lr=0.05, momentum=0.9)
    theirs = SGD(reference.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    for network_, optimizer in ((model, ours), (reference, theirs)):
        for step in range(5):
            images = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = network_(images).square().mean()
            loss.backward()
            optimizer.step()
    assert same([*model.parameters()], [*reference.parameters()])  # type: ignore[list-item]


def test_sparse_gradients_are_refused_in_words_where_they_cannot_be_added_to() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = SGD(decay.param_groups(table, 0.1), lr=0.1)
    decay.attach(optimizer, forms.l2)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(UsageError, match="needs dense ones"):
        optimizer.step()


class Searching(torch.optim.SGD):
    """Evaluates its closure three times a step, as line searches do."""

    def step(self, closure=None):
        assert closure is not None
        for _ in range(2):
            closure()
        return super().step(closure)


@pytest.mark.parametrize("form", [forms.independent, forms.l2])
def test_a_closure_that_runs_several_times_is_one_step(form) -> None:
    weight = nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = Searching([{"params": [weight], "decay": 0.1}], lr=1.0)
    decay.attach(optimizer, form, schedule=schedules.piecewise({2: 0.0}))

    def closure() -> torch.Tensor:
        weight.grad = torch.zeros_like(weight)
        return torch.zeros(())

    for expected in (0.9, 0.81, 0.81):
        optimizer.step(closure)
        assert weight.item() == pytest.approx(expected)


class Subclass(torch.optim.SGD):
    """Calls the step of its base class, whose hooks torch runs once more."""

    fails = False

    def step(self, closure=None):
        if self.fails:
            raise RuntimeError("out of memory")
        return super().step(closure)


@pytest.mark.parametrize("form", [forms.l2, forms.independent, forms.cautious])
def test_a_step_that_calls_its_base_class_decays_once(form) -> None:
    weight = nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = Subclass([{"params": [weight], "decay": 0.1}], lr=1.0)
    decay.attach(optimizer, form)
    idle(optimizer, 1)
    assert weight.item() == pytest.approx(0.9)
    optimizer.fails = True
    with pytest.raises(RuntimeError):
        idle(optimizer, 1)
    optimizer.fails = False
    before = weight.item()
    idle(optimizer, 1)
    assert weight.item() == pytest.approx(before * 0.9)


def test_rates_set_by_hand_are_relative_to_the_highest_so_far() -> None:
    weight, optimizer = parameter_under(forms.independent, lr=0.1, schedule=schedules.proportional)
    expected = 1.0
    for rate, factor in ((0.1, 1), (0.05, 0.5), (0.2, 1), (0.1, 0.5)):
        optimizer.param_groups[0]["lr"] = rate
        idle(optimizer, 1)
        expected *= 1 - 0.1 * factor
        assert weight.item() == pytest.approx(expected)


def test_a_cyclic_schedule_never_exceeds_the_coefficient() -> None:
    weight, optimizer = parameter_under(forms.independent, schedule=schedules.proportional)
    scheduler = torch.optim.lr_scheduler.CyclicLR(
        optimizer, base_lr=1e-3, max_lr=0.1, step_size_up=5, cycle_momentum=False
    )
    for _ in range(20):
        before = weight.item()
        idle(optimizer, 1)
        scheduler.step()
        assert before * (1 - 0.1 * (1 + 1e-12)) <= weight.item() < before


def test_a_state_without_decay_is_refused_at_the_next_step() -> None:
    weight, optimizer = parameter_under(forms.l2)
    plain = SGD([weight], lr=0.1)
    optimizer.load_state_dict(plain.state_dict())
    with pytest.raises(UsageError, match="no parameter group of this SGD has a 'decay'"):
        idle(optimizer, 1)


@pytest.mark.parametrize(
    ("form", "entries", "wd_at"),
    [
        (forms.independent, {}, lambda rate: 0.1 * rate / 0.1),
        (forms.decoupled, {"lr_corrected": True}, lambda rate: 0.1 * rate**2 / 0.1),
    ],
)
def test_a_peak_to_come_is_the_one_that_is_given(form, entries: dict, wd_at) -> None:
    schedule = schedules.proportional if form is forms.independent else schedules.constant
    weight = nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = SGD([{"params": [weight], "decay": 0.1, **entries}], lr=1e-3)
    decay.attach(optimizer, form, schedule=schedule, peak=0.1)
    scheduler = torch.optim.lr_scheduler.CyclicLR(
        optimizer, base_lr=1e-3, max_lr=0.1, step_size_up=5, cycle_momentum=False
    )
    for _ in range(12):
        before, rate = weight.item(), optimizer.param_groups[0]["lr"]
        idle(optimizer, 1)
        scheduler.step()
        assert weight.item() / before == pytest.approx(1 - wd_at(rate), rel=1e-12)
    fresh = SGD([{"params": [weight], "decay": 0.1}], lr=1e-3)
    fresh.load_state_dict(optimizer.state_dict())
    assert fresh.param_groups[0]["decay_peak_lr"] == 0.1


def test_peaks_of_several_groups() -> None:
    one, two = (nn.Parameter(torch.ones((), dtype=torch.float64)) for _ in range(2))
    groups = [{"params": [one], "decay": 0.1}, {"params": [two], "decay": 0.1, "lr": 0.02}]
    optimizer = SGD(groups, lr=0.01)
    with pytest.raises(UsageError, match="expected a positive rate, or one for each of 2 groups"):
        decay.attach(optimizer, forms.independent, peak=[0.1])
    with pytest.raises(UsageError, match="peak -1"):
        decay.attach(optimizer, forms.independent, peak=-1)
    decay.attach(optimizer, forms.independent, schedule=schedules.proportional, peak=[0.1, 0.4])
    idle(optimizer, 1)
    assert (one.item(), two.item()) == (pytest.approx(0.99), pytest.approx(0.995))
