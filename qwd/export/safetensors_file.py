"""Weights alone as codes, in safetensors; the layout is that of `qwd.export.codes`."""

import copy
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from qwd.checkpoints import pack_weights
from qwd.errors import InputError, VerificationError
from qwd.export import codes
from qwd.export.program import Program, Runs
from qwd.quantize.arithmetic import arithmetic_dtype
from qwd.quantize.clipping import quantize_clipped
from qwd.quantize.weights import layer_weights


class SafetensorsFile(Program):
    """The deployed network's tensors by name, its weights as codes with scale and zero point."""

    timed = "codes, dequantized"
    computes = False
    note = "Times are of reading the file into float tensors, which the network computes with."

    @cached_property
    def coded(self) -> dict[str, codes.Coded]:
        """Every quantized weight by name; one of several names under each of them."""
        scheme = self.scheme
        found: dict[int, codes.Coded] = {}
        for weight, channel_axis in layer_weights(self.network):
            axis = channel_axis if scheme.granularity == "channel" else None
            found[id(weight)] = codes.Coded(
                quantized=quantize_clipped(
                    weight, clip=scheme.clip, kind=scheme.kind, bits=scheme.weight_bits, axis=axis
                ),
                kind=scheme.kind,
                bits=scheme.weight_bits,
                axis=axis,
                arithmetic=arithmetic_dtype(weight.dtype),
            )
        named = self.network.named_parameters(remove_duplicate=False)
        return {name: found[id(weight)] for name, weight in named if id(weight) in found}

    def grids(self) -> dict[str, dict[str, Any]]:
        """See `Program.grids`."""
        return {
            name: {
                "scale": weight.quantized.scale.tolist(),
                **(
                    {"a": weight.quantized.a.tolist()}
                    if weight.kind == "minmax"
                    else {"zero_point": weight.quantized.zero_point.tolist()}
                ),
                "axis": weight.axis,
            }
            for name, weight in self.coded.items()
        }

    def content(self, metadata: Mapping[str, str]) -> bytes:
        """See `Program.content`."""
        return codes.contents(self.coded, self._others(), metadata)

    def reopened(self, content: bytes) -> nn.Module:
        """See `Program.reopened`; every tensor is compared bitwise."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "weights.safetensors")
            file.write_bytes(content)
            try:
                found = codes.load(file)
            except InputError as error:
                raise VerificationError(f"nothing was written: {error}") from error
        expected = {n: w.quantized.values for n, w in self.coded.items()} | self._others()
        for name, tensor in expected.items():
            if name not in found or not _same(found[name], tensor):
                raise VerificationError(f"{name} does not read back as it was written")
        network = copy.deepcopy(self.network)
        network.load_state_dict(found)
        return network

    def float_content(self) -> bytes:
        """See `Program.float_content`."""
        return pack_weights(self.network.state_dict())

    def runs(self, content: bytes, images: Tensor) -> Runs:
        """Reading each file, which the machine has in memory already, into tensors."""
        folder = tempfile.TemporaryDirectory()
        coded, plain = (Path(folder.name, f"{name}.safetensors") for name in ("codes", "float"))
        coded.write_bytes(content)
        plain.write_bytes(self.float_content())
        # The folder lives as long as what reads from it.
        return {
            "float32": lambda _=folder: load_file(plain),
            self.timed: lambda _=folder: codes.load(coded),
        }

    def _others(self) -> dict[str, Tensor]:
        state = self.network.state_dict()
        return {name: tensor for name, tensor in state.items() if name not in self.coded}


def _same(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are bitwise equal, NaN and the sign of zeros included."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    return torch.equal(_bytes(found), _bytes(expected))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
