"""What a report says where two backends of one scheme predict differently."""

import torch

from qwd.quantize.schemes import parse_scheme
from qwd.report.accuracies import disagreements


def test_backends_of_one_scheme_are_held_against_each_other() -> None:
    same = torch.arange(100) % 10
    few, many = same.clone(), same.clone()
    few[:5] += 1
    many[:6] += 1
    names = ("ao-static", "onnx-static", "simulated-static")

    def said(*classes: torch.Tensor) -> list[str]:
        return list(disagreements(dict(zip(map(parse_scheme, names), classes, strict=True))))

    assert said(same, same, few) == []
    (one, other) = said(same, many, same)
    assert one.startswith("ao-static and onnx-static, one scheme on two backends, predict the same")
    assert "for 94.0% of the images" in one
    assert other.startswith("onnx-static and simulated-static")


def test_other_schemes_and_torchs_own_grids_are_not() -> None:
    classes = {
        parse_scheme("ao-static"): torch.zeros(10),
        parse_scheme("affine-tensor-w4-a8@onnx"): torch.ones(10),
        parse_scheme("ao-default"): torch.zeros(10),
        parse_scheme("symmetric-channel-w8-a8@onnx"): torch.ones(10),
    }
    assert list(disagreements(classes)) == []
