"""What a report says where two backends of one arithmetic predict differently."""

import torch

from qwd.report.accuracies import disagreements

NAMES = ("ao-static", "onnx-static", "simulated-static")


def said(*classes: torch.Tensor, ran: tuple[str, ...] = ("a8", "a8", "a8")) -> list[str]:
    return list(disagreements(dict(zip(NAMES, zip(ran, classes, strict=True), strict=True))))


def test_backends_of_one_arithmetic_are_held_against_each_other() -> None:
    same = torch.arange(100) % 10
    few, many = same.clone(), same.clone()
    few[:5] += 1
    many[:6] += 1
    assert said(same, same, few) == []
    (one, other) = said(same, many, same)
    assert one.startswith("ao-static and onnx-static, one scheme on two backends, predict the same")
    assert "for 94.0% of the images" in one
    assert other.startswith("onnx-static and simulated-static")


def test_another_arithmetic_is_another_network() -> None:
    zeros, ones = torch.zeros(10), torch.ones(10)
    assert said(zeros, ones, ones, ran=("a7", "a8", "a8")) == []
    assert len(said(zeros, ones, ones, ran=("a8", "a8", "a7"))) == 1
