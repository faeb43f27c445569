"""What every schedule keeps to, whoever wrote it: resuming, warm-up, short trainings."""

import io
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from qwd.config import TrainConfig
from qwd.decay.attach import peak_rate as peak_of
from qwd.registry import SCHEDULES
from qwd.train.schedules import RateSchedule, planned_rates
from tests.train.idle_training import ROUNDING, optimizer_of


def small(name: str, warmup: float = 0.0) -> TrainConfig:
    return TrainConfig(lr=0.3, epochs=6, lr_schedule=name, warmup=warmup)


@pytest.mark.parametrize("warmup", [0.0, 0.7])
@pytest.mark.parametrize("name", SCHEDULES.names())
def test_contract(name: str, warmup: float) -> None:
    config = small(name, warmup)
    factors = (1.0, 2.0, 0.01)
    optimizer = optimizer_of(config, factors)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = RateSchedule(optimizer, config, 10)
        first = schedule.rate
        for step in range(60):
            for group, factor in zip(optimizer.param_groups, factors, strict=True):
                assert 0 <= group["lr"] <= 0.3 * factor * (1 + ROUNDING)
                assert group["lr"] == pytest.approx(schedule.rate * factor)
                assert peak_of(group) == 0.3 * factor
                assert "initial_lr" in group
            assert schedule.rate == planned_rates(config, 10)[step]
            optimizer.step()
            schedule.step()
        last = schedule.rate
        schedule.step()
        assert schedule.rate == last
    assert first == planned_rates(config, 10)[0]
    assert max(planned_rates(config, 10)) <= 0.3 * (1 + ROUNDING)


@pytest.mark.parametrize("stop", [0, 3, 7, 30, 59])
@pytest.mark.parametrize("name", SCHEDULES.names())
def test_contract_resume_is_exact(name: str, stop: int) -> None:
    config = small(name, warmup=0.7)

    def run(optimizer, schedule, begin: int, end: int) -> list[list[float]]:
        rates = []
        for step in range(begin, end):
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            schedule.step()
            if step % 10 == 9:
                schedule.epoch_ended(1.0)
        return rates

    whole = optimizer_of(config, (1.0, 0.3))
    schedule = RateSchedule(whole, config, 10)
    run(whole, schedule, 0, stop)
    stored = io.BytesIO()
    torch.save([schedule.state_dict(), whole.state_dict()], stored)
    expected = run(whole, schedule, stop, 60)

    for with_optimizer in (True, False):
        stored.seek(0)
        state, optimizer_state = torch.load(stored, weights_only=True)
        again = optimizer_of(config, (1.0, 0.3))
        resumed = RateSchedule(again, config, 10)
        if with_optimizer:
            again.load_state_dict(optimizer_state)
        resumed.load_state_dict(state)
        assert run(again, resumed, stop, 60) == expected


def test_a_state_of_other_groups_is_refused() -> None:
    config = small("cosine")
    state = RateSchedule(optimizer_of(config, (1.0, 2.0)), config, 10).state_dict()
    with pytest.raises(ValueError, match="shorter|longer|argument"):
        RateSchedule(optimizer_of(config), config, 10).load_state_dict(state)


@given(
    name=st.sampled_from(SCHEDULES.names()),
    epochs=st.integers(1, 5),
    spe=st.integers(1, 7),
    warmup=st.floats(0, 0.99),
)
def test_contract_short_trainings(name: str, epochs: int, spe: int, warmup: float) -> None:
    warmup = min(warmup, 0.3) if name == "multistep" else warmup
    rates = planned_rates(TrainConfig(lr=0.3, epochs=epochs, lr_schedule=name, warmup=warmup), spe)
    assert len(rates) == epochs * spe
    assert all(0 <= rate <= 0.3 * (1 + ROUNDING) for rate in rates)


def test_schedules_of_others_are_warmed_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def rising(optimizer, config, steps, steps_per_epoch):
        return lr_scheduler.LambdaLR(optimizer, lambda t: 0.5 + 0.5 * t / steps)

    monkeypatch.setattr(SCHEDULES, "_entries", {**SCHEDULES._entries})
    SCHEDULES.register("rising")(rising)
    config = TrainConfig(lr=1.0, epochs=3, lr_schedule="rising", warmup=1)
    assert planned_rates(config, 2) == pytest.approx([0.25, 0.5, 0.5, 0.625, 0.75, 0.875])
