"""PT2E of torchao, with its quantizer for x86.

torch.export records the network, prepare_pt2e and convert_pt2e put quantize and dequantize
operators into the graph. `X86InductorQuantizer` runs with its default static configuration: weights
int8, symmetric, per output channel, scale = max|w| / 127.5 and at least 2^-12; activations uint8
with a zero point over a histogram, with all 8 bits (torch.ao's default for x86 has 7).

That graph computes in float with the values of the codes, which gives the sums that integers give,
up to float32 rounding, on any processor. On engine ``inductor`` the passes of torch's Inductor turn
it into oneDNN's integer kernels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qwd.quantize import pt2e_kernels
from qwd.quantize.backend import Backend, Description, NotQuantizableError
from qwd.quantize.floors import floor_warning
from qwd.quantize.parameter_names import layers_of, left_float
from qwd.quantize.program import exported_program
from qwd.quantize.pt2e_graph import (
    activation_scales,
    observed_graph,
    observers,
    quantized_parameters,
    refusal,
    smallest_scale,
    with_codes,
)
from qwd.quantize.quiet import quiet
from qwd.quantize.schemes import Scheme

INDUCTOR = "inductor"


@dataclass
class Observed:
    """A recorded network with observers."""

    module: Any
    network: nn.Module
    """the float network that it was made of"""
    scheme: Scheme
    example: Tensor
    narrow: bool
    """whether activations were cut to 7 bits"""

    def __call__(self, images: Tensor) -> Tensor:
        """The float network's outputs; the observers see what it computes."""
        with quiet():
            return self.module(images)


class Converted:
    """A quantized network: the graph with quantize and dequantize operators, and what runs it.

    Nothing changes it, and oneDNN's packed weights cannot be copied: its copies are itself.
    """

    def __init__(self, graph: Any, runs: Any, description: Description):
        self.graph = graph
        self.description = description
        self._runs = runs

    def __call__(self, images: Tensor) -> Tensor:
        """Outputs, float32 [N, classes], for images [N, C, H, W]."""
        with torch.no_grad():
            return self._runs(images)

    def __deepcopy__(self, memo: Any) -> "Converted":
        return self

    def exported(self, example: Tensor) -> Any:
        """The ``torch.export.ExportedProgram`` of the graph, for any number of images.

        ``example`` is a batch [N, C, H, W]. ``torch.export.save`` writes it; a process that loads
        it has to import torchao.quantization.pt2e first, which registers the graph's operators.
        Stack traces, with the paths of this machine, are left out.
        """
        with quiet():
            program = exported_program(self.graph, example)
        for node in program.graph.nodes:
            for key in ("stack_trace", "from_node"):
                node.meta.pop(key, None)
        return program


class PT2E(Backend):
    """torchao's PT2E quantization for x86: symmetric weights per channel."""

    def check(self, scheme: Scheme) -> None:
        """NotQuantizableError where a scheme is none of X86InductorQuantizer's."""
        if scheme.kind != "symmetric" or scheme.granularity != "channel" or scheme.clip != "none":
            raise NotQuantizableError(
                "PT2E takes symmetric weights only (X86InductorQuantizer: per channel, without "
                f"clipping), not {scheme.full_name}; the backends 'ao' and 'onnx' take affine "
                "ones too"
            )
        if (scheme.weight_bits, scheme.activation_bits) != (8, 8):
            raise NotQuantizableError(
                f"PT2E takes 8-bit weights and 8-bit activations only, not {scheme.full_name}"
            )
        if scheme.engine not in (None, INDUCTOR):
            raise NotQuantizableError(
                f"PT2E has no engine {scheme.engine!r}; it has {INDUCTOR}, or none for the graph "
                "in float"
            )
        if scheme.engine == INDUCTOR and not torch.backends.mkldnn.is_available():
            raise NotQuantizableError(
                "this build of torch has no oneDNN, whose kernels Inductor calls"
            )

    def prepare(self, network: nn.Module, scheme: Scheme, example: Tensor) -> Observed:
        """Record the network and insert observers; see `qwd.quantize.backend.Backend`."""
        narrow = scheme.engine == INDUCTOR and pt2e_kernels.accumulators_saturate()
        graph = observed_graph(network, example, narrow=narrow)
        return Observed(graph, network, scheme, example, narrow)

    def calibrate(self, prepared: Observed, batches: Sequence[Tensor]) -> None:
        """See `qwd.quantize.backend.Backend`."""
        try:
            super().calibrate(prepared, batches)
        except Exception as error:
            raise refusal(error) from error

    def convert(self, prepared: Observed) -> Converted:
        """Put codes into the graph; see `qwd.quantize.backend.Backend`."""
        scheme, network = prepared.scheme, prepared.network
        graph = with_codes(prepared.module)
        runs, notes = graph, _warnings(prepared)
        if scheme.engine == INDUCTOR:
            runs = pt2e_kernels.Lowered(graph, prepared.example)
            notes += pt2e_kernels.without_kernels(runs, graph, scheme)
        quantized = layers_of(network, quantized_parameters(prepared.module, network))
        description = Description(
            activation_bits=7 if prepared.narrow else 8,
            engine=scheme.engine,
            observer=observers(),
            quantized=tuple(quantized),
            left_float=tuple(left_float(network, quantized)),
            warnings=tuple(notes),
        )
        return Converted(graph, runs, description)

    def describe(self, converted: Converted) -> Description:
        """Which layers got codes."""
        return converted.description


def _warnings(prepared: Observed) -> list[str]:
    scheme, notes = prepared.scheme, []
    if prepared.narrow:
        notes.append(
            f"{scheme.name}: 8-bit activations saturate in oneDNN on this processor (no VNNI), so "
            "they were cut to 7 bits"
        )
    floor = smallest_scale()
    weights = floor_warning(prepared.network, scheme, floor, "PT2E")
    if weights:
        notes.append(weights)
    scales = activation_scales(prepared.module)
    low = [name for name, scale in scales.items() if 0 < scale < floor]
    if low:
        notes.append(
            f"{scheme.name}: the smallest scale of PT2E, {floor:.3g}, coarsens {len(low)} of "
            f"{len(scales)} activations: {', '.join(low)}"
        )
    return notes
