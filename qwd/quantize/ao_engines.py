"""Which of torch.ao's engines runs a scheme, and with how many bits of activations.

An engine is a set of int8 kernels: x86, fbgemm, onednn or qnnpack.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from qwd.quantize import ao_graph, torch_ao
from qwd.quantize.backend import NotQuantizableError, check_integer_kernels
from qwd.quantize.saturation import saturating_layers
from qwd.quantize.schemes import AO_DEFAULT, Scheme
from qwd.quantize.torch_ao import running_on


def check(scheme: Scheme) -> None:
    """NotQuantizableError where torch.ao has no kernels for a scheme."""
    check_integer_kernels(scheme, "torch.ao")
    if scheme.engine is not None and scheme.engine not in torch_ao.ENGINES:
        raise NotQuantizableError(
            f"torch.ao has no engine {scheme.engine!r}; it has {', '.join(torch_ao.ENGINES)}"
        )
    if scheme.engine and scheme.engine not in torch.backends.quantized.supported_engines:
        raise NotQuantizableError(f"this build of torch has no engine {scheme.engine}")
    if scheme.engine == "onednn" and scheme.kind == "affine":
        raise NotQuantizableError(
            "oneDNN takes symmetric weights only, whose zero point is 0; "
            "affine ones run on x86, fbgemm and qnnpack"
        )


def engine_for(network: nn.Module, scheme: Scheme) -> tuple[str, bool, list[str]]:
    """The engine, whether activations have to be cut to 7 bits on it, and what to say of that.

    The scheme's own engine, or the first whose kernels hold all sums of this network's layers.
    Raises NotQuantizableError where this build of torch has none.
    """
    built = torch.backends.quantized.supported_engines
    takes = [e for e in torch_ao.ENGINES if e != "onednn" or scheme.kind == "symmetric"]
    if ao_graph.clamps(network):
        # Its clamps are wrong on tensors in channels_last, as its convolutions give them.
        takes.remove("qnnpack")
        if scheme.engine == "qnnpack":
            raise NotQuantizableError(
                f"QNNPACK's clamps (ReLU6, Hardtanh) are wrong; use {', '.join(takes)}"
            )
    asked = [scheme.engine] if scheme.engine else takes
    engines = [engine for engine in asked if engine in built]
    if not engines:
        raise NotQuantizableError(f"this build of torch has no engine {' or '.join(asked)}")
    if is_torchs_own(scheme):
        return engines[0], False, []
    lossy: dict[str, list[str]] = {}
    for engine in engines:
        with running_on(engine):
            lossy[engine] = saturating_layers(
                network, affine=scheme.kind == "affine", per_channel=scheme.granularity == "channel"
            )
    first = engines[0]
    chosen = next((engine for engine in engines if not lossy[engine]), first)
    if not lossy[first]:
        return first, False, []
    trouble = f"8-bit activations saturate in {first}'s kernels for {_some(lossy[first])}"
    if chosen == first:
        return first, True, [f"{scheme.name}: {trouble}, so activations were cut to 7 bits"]
    return chosen, False, [f"{scheme.name}: {trouble}, so {chosen} computed"]


def is_torchs_own(scheme: Scheme) -> bool:
    """Whether a scheme is torch's own configuration, on any engine."""
    return replace(scheme, engine=None) == AO_DEFAULT


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
