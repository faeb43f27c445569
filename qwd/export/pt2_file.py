"""A quantized network as a .pt2 file of torch.export: a graph that quantizes and dequantizes.

The file holds the codes of the weights and the operators around them, not the kernels: loaded and
called, it computes in float with the values of the codes. Lowered by torch's Inductor for x86 it
runs on integers. A process that loads it imports ``torchao.quantization.pt2e`` first, which
registers the operators. Metadata are JSON in the file's extra file ``qwd.json``.
"""

import copy
import io
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from qwd.errors import VerificationError, reason
from qwd.export.program import Program, Runs
from qwd.quantize.program import exported_program
from qwd.quantize.pt2e import Converted
from qwd.quantize.quiet import quiet

FACTS = "qwd.json"
"""the extra file with the metadata"""

DEQUANTIZE = "quantized_decomposed.dequantize_per_channel.default"


class Pt2File(Program):
    """The ExportedProgram of a network of PT2E; N, the number of images, is free."""

    timed = "torch int8 graph, eager"
    note = (
        "The file's graph was run as it is loaded: the reference, in float with the values of the "
        "codes. Integer kernels come with torch's Inductor, which was not timed."
    )

    def grids(self) -> dict[str, dict[str, Any]]:
        """See `Program.grids`; a weight has the name of the parameter that it is nearest to."""
        buffers = self._program.graph_signature.inputs_to_buffers
        state = self._program.state_dict
        found = {}
        for node in self._program.graph.nodes:
            if str(node.target) != DEQUANTIZE:
                continue
            codes, scale, zero_point = (state[buffers[n.name]] for n in node.args[:3])
            axis = node.args[3]
            along = [-1 if d == axis else 1 for d in range(codes.ndim)]
            values = (codes - zero_point.reshape(along)) * scale.reshape(along)
            found[self._nearest(values)] = {
                "scale": scale.tolist(),
                "zero_point": zero_point.tolist(),
                "axis": axis,
            }
        return found

    def content(self, metadata: Mapping[str, str]) -> bytes:
        """See `Program.content`."""
        return _saved(self._program, {FACTS: json.dumps(dict(metadata))})

    def reopened(self, content: bytes) -> nn.Module:
        """See `Program.reopened`.

        What torch.export.load is given here was saved by this very process. It is not for files
        from strangers.
        """
        try:
            with quiet():
                return _Loaded(torch.export.load(io.BytesIO(content)))
        except Exception as error:
            raise VerificationError(
                f"nothing was written: torch.export cannot load the file: {reason(error)}"
            ) from error

    def float_content(self) -> bytes:
        """See `Program.float_content`."""
        with quiet():
            program = exported_program(self.network, self.example)
        # As in the quantized program, without stack traces.
        for node in program.graph.nodes:
            for key in ("stack_trace", "from_node"):
                node.meta.pop(key, None)
        return _saved(program, {})

    def runs(self, content: bytes, images: Tensor) -> Runs:
        """torch on the file and on the network in float32, both eager."""
        file = self.reopened(content)
        return {
            "torch float32, eager": lambda: self.network(images),
            self.timed: lambda: file(images),
        }

    @cached_property
    def _program(self) -> Any:
        converted: Converted = self.made.converted
        graph = _without_unused_parameters(converted.graph)
        return Converted(graph, graph, converted.description).exported(self.example)

    def _nearest(self, values: Tensor) -> str:
        """The parameter of the float network that quantized ``values`` are of."""
        distances = {
            name: (parameter.detach() - values).abs().max().item()
            for name, parameter in self.network.named_parameters()
            if parameter.shape == values.shape
        }
        return min(distances, key=distances.__getitem__)


class _Loaded(nn.Module):
    """A loaded program; its module, which refuses train() and eval(), is kept out of sight."""

    def __init__(self, program: Any):
        super().__init__()
        self._run = (program.module(),)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs, float32 [N, classes], for images [N, C, H, W]."""
        return self._run[0](images)


def _without_unused_parameters(graph: Any) -> Any:
    """A copy of an fx.GraphModule without the float weights that codes have taken the place of."""
    with quiet():
        graph = copy.deepcopy(graph)
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name, _ in list(graph.named_parameters(remove_duplicate=False)):
        if name not in used:
            path, _, attribute = name.rpartition(".")
            delattr(graph.get_submodule(path), attribute)
    return graph


def _saved(program: Any, extra_files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files=extra_files)
    return buffer.getvalue()
