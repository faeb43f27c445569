"""From a trained network to a file that is deployed, checked before it is put in place.

==================  ==========================================================================
`export`            quantize a run or a checkpoint, check the result, write the file
`load`              the weights of an exported safetensors file, dequantized
`benchmark`         latency of float against int8 on this machine, interleaved
==================  ==========================================================================

Formats: `qwd.export.formats`. Importing this package does not import torch.
"""

from typing import TYPE_CHECKING, Any

from qwd.registry import resolve

if TYPE_CHECKING:
    from qwd.export.codes import load
    from qwd.export.entry import export
    from qwd.export.timing import benchmark

__all__ = ["benchmark", "export", "load"]

_PLACES = {
    "benchmark": "qwd.export.timing:benchmark",
    "export": "qwd.export.entry:export",
    "load": "qwd.export.codes:load",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return resolve(_PLACES[name])
    raise AttributeError(f"module 'qwd.export' has no attribute {name!r}")
