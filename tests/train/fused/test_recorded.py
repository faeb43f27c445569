"""Recorded operations give, call after call, what the function gives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qwd.train.fused.recorded import Recorded

KEPT = torch.zeros(3)


def of_views(w: Tensor, x: Tensor) -> list[Tensor]:
    return [x.view(2, 3) @ w[:, 1:].reshape(2, 3).t() * 1]


def of_constants(w: Tensor, x: Tensor) -> list[Tensor]:
    return [w.sum() * torch.arange(3) + torch.ones_like(x).sum()]


def of_changed_constants(w: Tensor, x: Tensor) -> list[Tensor]:
    counts = torch.zeros(2, 3)
    counts.view(-1).add_(x)
    return [counts + w[:, :3]]


def constant(w: Tensor, x: Tensor) -> list[Tensor]:
    return [torch.zeros(3) + 1, x + w[0, 0]]


def of_integers(w: Tensor, x: Tensor) -> list[Tensor]:
    return [(w > 0).long() * 1.0, (w > 0).long() * 1, x]


def a_view(w: Tensor, x: Tensor) -> list[Tensor]:
    return [w[0], x]


def of_pairs(w: Tensor, x: Tensor) -> list[Tensor]:
    largest, places = w.max(dim=1)
    return [largest + x[:2], places * 1]


def of_casts(w: Tensor, x: Tensor) -> list[Tensor]:
    with torch.autocast("cpu", torch.bfloat16):
        return [w.t().contiguous() @ w, w[0].bfloat16() * x[0], (w.t() @ x.view(2, 3)).float()]


FUNCTIONS = [
    *(of_views, of_constants, of_changed_constants, constant, of_integers, a_view, of_pairs),
    of_casts,
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_it_gives_what_the_function_gives(function: Callable[..., list[Tensor]]) -> None:
    generator = torch.Generator().manual_seed(0)
    w, x = torch.randn(2, 4, generator=generator), torch.randn(6, generator=generator)
    recorded = Recorded(function, [w], [x])
    for _ in range(3):
        w.normal_(generator=generator)
        x = torch.randn(6, generator=generator)
        for found, expected in zip(recorded(x), function(w, x), strict=True):
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected)
            found += 1  # which is the caller's


def test_random_numbers_are_drawn_anew() -> None:
    w = torch.zeros(3)
    recorded = Recorded(lambda w, x: [torch.rand(3) + w + x], [w], [torch.zeros(3)])
    assert not torch.equal(recorded(w)[0], recorded(w)[0])


def called(recorded: Recorded) -> list[str]:
    nodes = recorded.graph.graph.nodes
    return [getattr(node.target, "__name__", "") for node in nodes if node.op == "call_function"]


def test_what_stays_is_worked_out_once() -> None:
    recorded = Recorded(of_constants, [torch.zeros(2, 4)], [torch.zeros(6)])
    assert sorted(called(recorded)) == ["add", "mul", "sum"]


def test_operators_stay_where_results_differ_from_call_to_call():
    torch.manual_seed(0)
    recorded = Recorded(lambda w, x: [w * x + torch.rand_like(w)], [torch.ones(3)], [torch.ones(3)])
    assert sorted(called(recorded)) == ["add.Tensor", "mul.Tensor", "rand_like.default"]
    first, second = recorded(torch.ones(3)), recorded(torch.ones(3))
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize(
    "function",
    [
        lambda w, x: [x * w.sum().item()],
        lambda w, x: [x[x > 0]],
        lambda w, x: [x + torch.tensor([1.0])],
        lambda w, x: [KEPT],
    ],
    ids=["a number", "a size", "a tensor made of numbers", "a tensor of its own"],
)
def test_what_the_graph_would_not_know_is_refused(function: Callable[..., list[Tensor]]) -> None:
    with pytest.raises(ValueError, match=r"depends on elements|neither an argument"):
        Recorded(function, [torch.ones(2)], [torch.ones(3)])
