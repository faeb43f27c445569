"""PT2E on Inductor's integer kernels: what they compute, and what keeps them from it."""

from typing import Any

import pytest
import torch

from qwd.quantize import pt2e_kernels
from qwd.quantize.backend import LAYERS, NotQuantizableError
from qwd.quantize.backend import quantize as quantized
from qwd.quantize.schemes import parse_scheme
from tests.quantize.deployed import batches, deployed

DEFAULT = parse_scheme("pt2e-default")
INDUCTOR = parse_scheme("symmetric-channel-w8-a8@pt2e:inductor")


@pytest.mark.parametrize("model", ["small_cnn", pytest.param("mobilenet", marks=pytest.mark.long)])
def test_inductor_runs_integer_kernels(model: str) -> None:
    graph, lowered = (quantized(deployed(model), s, batches()) for s in (DEFAULT, INDUCTOR))
    layers = [m for m in deployed(model).modules() if isinstance(m, LAYERS)]
    assert lowered.converted._runs.kernels == len(layers)
    assert lowered.description.engine == "inductor"
    assert lowered.description.warnings == ()
    images = torch.randn(21, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    expected, found = graph(images), lowered(images)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    assert not torch.equal(found, expected)
    # Batches of another size are cut and filled up to the one that was lowered.
    for n in (1, 8, 13):
        torch.testing.assert_close(lowered(images[:n]), found[:n])
    assert torch.equal(lowered(images), found)


def test_without_onednn_there_is_no_inductor(monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(NotQuantizableError, match="this build of torch has no oneDNN"):
        quantized(deployed("small_cnn"), INDUCTOR, batches())


def test_saturating_kernels_cut_the_activations_to_7_bits(monkeypatch) -> None:
    monkeypatch.setattr(pt2e_kernels, "accumulators_saturate", lambda: True)
    # The graph in float does not saturate.
    assert quantized(deployed("small_cnn"), DEFAULT, batches()).description.warnings == ()
    result = quantized(deployed("small_cnn"), INDUCTOR, batches())
    assert result.description.activation_bits == 7
    (warning,) = result.description.warnings
    assert "8-bit activations saturate in oneDNN" in warning
    assert "cut to 7 bits" in warning
    quantize_op: Any = torch.ops.quantized_decomposed.quantize_per_tensor.default
    nodes = [n for n in result.converted.graph.graph.nodes if n.target is quantize_op]
    assert {node.args[3:5] for node in nodes} == {(0, 127)}


def test_the_probe_compares_the_kernels_with_the_graph(monkeypatch) -> None:
    # On a processor without VNNI the real kernels may be lossy themselves.
    if pt2e_kernels.accumulators_saturate():
        pytest.skip("this processor's kernels saturate")
    whole = []

    class Lossy(pt2e_kernels.Lowered):
        """Loses part of the largest sums, as 16-bit accumulators do."""

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            whole.append(super().__call__(images))
            return 0.9 * whole[0]

    monkeypatch.setattr(pt2e_kernels, "Lowered", Lossy)
    assert pt2e_kernels.accumulators_saturate()
    # What is to come out whole: 288 products of 1, and the weights end at code 127 of 127.5.
    torch.testing.assert_close(whole[0], torch.full_like(whole[0], 288 * 127 / 127.5), rtol=0.01,
                               atol=0)  # fmt: skip


def test_an_engine_without_integer_kernels_is_no_engine(monkeypatch) -> None:
    monkeypatch.setattr(pt2e_kernels, "lower_pt2e_quantized_to_x86", lambda graph, example: graph)
    with pytest.raises(NotQuantizableError, match="no integer kernel for any layer"):
        quantized(deployed("small_cnn"), INDUCTOR, batches())


def test_layers_without_integer_kernels_are_counted(monkeypatch) -> None:
    real = pt2e_kernels.Lowered

    class Fewer(real):
        def __init__(self, graph: Any, example: torch.Tensor):
            super().__init__(graph, example)
            self.kernels -= 1

    monkeypatch.setattr(pt2e_kernels, "Lowered", Fewer)
    result = quantized(deployed("small_cnn"), INDUCTOR, batches())
    (warning,) = result.description.warnings
    assert "integer kernels for 3 of 4 layers" in warning


def test_what_inductor_cannot_lower_is_refused(monkeypatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(pt2e_kernels, "lower_pt2e_quantized_to_x86", fails)
    with pytest.raises(NotQuantizableError, match="Inductor cannot lower this network .*: first"):
        quantized(deployed("small_cnn"), INDUCTOR, batches())
