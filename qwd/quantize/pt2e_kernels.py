"""PT2E graphs as oneDNN's integer kernels, by the passes of torch's Inductor."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qwd.errors import reason
from qwd.quantize.backend import NotQuantizableError
from qwd.quantize.pt2e_extra import lower_pt2e_quantized_to_x86
from qwd.quantize.pt2e_graph import observed_graph, with_codes
from qwd.quantize.quiet import quiet
from qwd.quantize.schemes import Scheme


class Lowered:
    """A graph as integer kernels, which Inductor makes for batches of one size.

    Raises NotQuantizableError where this build of torch or this graph cannot be lowered.
    """

    def __init__(self, graph: Any, example: Tensor):
        self.batch = len(example)
        try:
            with quiet(), torch.no_grad():
                self.module: Any = lower_pt2e_quantized_to_x86(copy.deepcopy(graph), (example,))
                _reshaping(self.module)(example)
        except Exception as error:
            raise NotQuantizableError(
                f"Inductor cannot lower this network to integer kernels: {reason(error)}"
            ) from error
        targets = [str(node.target) for node in self.module.graph.nodes]
        self.kernels = sum(target.startswith("onednn.q") for target in targets)
        """how many of its operators are integer convolutions and linear layers"""

    def __call__(self, images: Tensor) -> Tensor:
        """See `Converted`; the last batch is filled up with black images."""
        missing = -len(images) % self.batch
        filled = F.pad(images, (*[0] * (2 * images.ndim - 1), missing))
        outputs = [self.module(batch) for batch in filled.split(self.batch)]
        return torch.cat(outputs)[: len(images)]


def accumulators_saturate() -> bool:
    """Whether oneDNN's integer kernels lose large sums of 8-bit products on this processor.

    Without VNNI, x86 kernels may add two products of an unsigned and a signed byte in 16 bits. A
    convolution of the largest codes shows it: its sums must be those of the graph in float.
    """
    # Without drawing initial weights, which would move torch's generator.
    layer: Any = nn.utils.skip_init(nn.Conv2d, 32, 32, 3, bias=False).eval()
    nn.init.ones_(layer.weight)
    images = torch.ones(2, 32, 5, 5)
    observed = observed_graph(layer, images, narrow=False)
    with torch.no_grad():
        observed(images)
        graph = with_codes(observed)
        expected, found = graph(images), Lowered(graph, images)(images)
    return not torch.allclose(found, expected, rtol=0.01)


def without_kernels(lowered: Lowered, graph: Any, scheme: Scheme) -> list[str]:
    """What is to be said where some products stayed in float; NotQuantizableError where all did."""
    dequantize: Any = torch.ops.quantized_decomposed.dequantize_per_channel.default
    products = sum(len(n.users) for n in graph.graph.nodes if n.target is dequantize)
    if lowered.kernels >= products:
        return []
    if not lowered.kernels:
        raise NotQuantizableError("Inductor has no integer kernel for any layer of this network")
    return [
        f"{scheme.name}: Inductor has integer kernels for {lowered.kernels} of {products} layers; "
        "the others compute in float with the values of the codes"
    ]


def _reshaping(lowered: Any) -> Any:
    """Let reshape stand for view: oneDNN's outputs are channels-last, where a view may not be."""
    for node in lowered.graph.nodes:
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    lowered.recompile()
    return lowered
