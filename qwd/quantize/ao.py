"""torch.ao.quantization, the int8 backend: FX graph mode, post-training, static.

The weights are quantized by qwd's own QConfig (`affine` or `symmetric`, per tensor or channel, 2
to 8 bits in qint8), the activations as quint8 over their minimum and maximum, and the result runs
on real int8 kernels. ``ao-default`` is torch's own configuration, kept as it is: on x86 symmetric
weights per channel, histograms and 7-bit activations.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from qwd.errors import reason
from qwd.quantize import ao_graph, torch_ao
from qwd.quantize.arithmetic import code_range, quantize
from qwd.quantize.backend import LAYERS, Backend, Description, NotQuantizableError
from qwd.quantize.floors import floor_warning
from qwd.quantize.saturation import saturating_layers
from qwd.quantize.schemes import AO_DEFAULT, INTEGER_KINDS, Scheme
from qwd.quantize.torch_ao import MinMaxObserver, PerChannelMinMaxObserver, running_on

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Left in float: torch's x86 kernels for them return other numbers at every call."""

NO_FLOOR = torch.finfo(torch.float32).tiny
"""The smallest scale: torch's observers would floor it at 1.19e-7."""

WEIGHT_QSCHEMES = {
    ("affine", "tensor"): (MinMaxObserver, torch.per_tensor_affine),
    ("affine", "channel"): (PerChannelMinMaxObserver, torch.per_channel_affine),
    ("symmetric", "tensor"): (MinMaxObserver, torch.per_tensor_symmetric),
    ("symmetric", "channel"): (PerChannelMinMaxObserver, torch.per_channel_symmetric),
}


@dataclass
class Observed:
    """A network on its way through torch.ao: observed, then converted."""

    module: Any
    network: nn.Module
    """the float network that it was made of"""
    scheme: Scheme
    engine: str
    activation_bits: int
    observer: str
    warnings: list[str]

    def __call__(self, images: Tensor) -> Tensor:
        """The output of ``module`` on its engine."""
        with running_on(self.engine):
            return self.module(images)


class TorchAO(Backend):
    """torch.ao FX static quantization: int8 kernels on the CPU (x86, fbgemm, qnnpack, onednn)."""

    def prepare(self, network: nn.Module, scheme: Scheme, example: Tensor) -> Observed:
        """Insert observers; see `qwd.quantize.backend.Backend`."""
        check(scheme)
        engine, narrow, notes = engine_for(network, scheme)
        with running_on(engine):
            if _is_torchs_own(scheme):
                mapping = torch_ao.get_default_qconfig_mapping(engine)
                narrow = _reduces_range(mapping)
                floor = floor_warning(network, scheme, _floor(mapping), "torch's observer")
                notes += [floor] if floor else []
            else:
                config = qconfig(scheme, reduce_range=narrow)
                mapping = torch_ao.QConfigMapping().set_global(config)
            for kind in TRANSPOSED:
                mapping.set_object_type(kind, None)
            try:
                plain = ao_graph.rewired(
                    copy.deepcopy(network).eval(), averages_in_float=not _is_torchs_own(scheme)
                )
                module = torch_ao.prepare_fx(
                    plain,
                    mapping,
                    (example,),
                    prepare_custom_config=torch_ao.leaves(ao_graph.Average),
                )
            except Exception as error:
                raise refusal(error) from error
            observer = _observers(mapping)
        bits = 7 if narrow else 8
        return Observed(module, network, scheme, engine, bits, observer, notes)

    def calibrate(self, prepared: Observed, batches: Sequence[Tensor]) -> None:
        """See `qwd.quantize.backend.Backend`."""
        try:
            super().calibrate(prepared, batches)
        except Exception as error:
            raise refusal(error) from error

    def convert(self, prepared: Observed) -> Observed:
        """To int8 kernels; see `qwd.quantize.backend.Backend`."""
        own = not _is_torchs_own(prepared.scheme)
        if own:
            ao_graph.share_ranges_of_moved_values(prepared.module)
        scales = ao_graph.input_scales(prepared.module)
        converted = replace(prepared, module=converted_by_torch(prepared.module, prepared.engine))
        if own:
            with running_on(prepared.engine):  # weights are packed anew, for one engine
                _store_own_codes(converted.module, prepared.network, prepared.scheme, scales)
        return converted

    def describe(self, converted: Observed) -> Description:
        """Which layers became integer kernels."""
        layers = {n for n, m in converted.network.named_modules() if isinstance(m, LAYERS)}
        quantized = {n for n, _ in quantized_layers(converted.module)}
        return Description(
            activation_bits=converted.activation_bits,
            engine=converted.engine,
            observer=converted.observer,
            quantized=tuple(sorted(quantized)),
            left_float=tuple(sorted(layers - quantized)),
            warnings=tuple(converted.warnings),
        )


def check(scheme: Scheme) -> None:
    """NotQuantizableError where torch.ao has no kernels for a scheme."""
    if scheme.activation_bits != 8:
        found = f"{scheme.activation_bits} bits" if scheme.activation_bits else "float"
        raise NotQuantizableError(f"torch.ao's kernels take 8-bit activations, not {found}")
    if scheme.kind not in INTEGER_KINDS or scheme.clip != "none":
        raise NotQuantizableError(
            f"torch.ao runs {' and '.join(INTEGER_KINDS)} weights without clipping; "
            f"{scheme.full_name} runs on the backend 'simulated'"
        )
    if scheme.engine is not None and scheme.engine not in torch_ao.ENGINES:
        raise NotQuantizableError(
            f"torch.ao has no engine {scheme.engine!r}; it has {', '.join(torch_ao.ENGINES)}"
        )
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
    if any(isinstance(module, nn.Hardtanh) for module in network.modules()):
        # Its clamps (ReLU6 is one) are wrong on tensors in channels_last.
        takes.remove("qnnpack")
    asked = [scheme.engine] if scheme.engine else takes
    engines = [engine for engine in asked if engine in built]
    if not engines:
        raise NotQuantizableError(f"this build of torch has no engine {' or '.join(asked)}")
    if _is_torchs_own(scheme):
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


def qconfig(scheme: Scheme, *, reduce_range: bool = False) -> Any:
    """qwd's QConfig: weights by ``scheme`` with the true scale, activations quint8."""
    observer, qscheme = WEIGHT_QSCHEMES[scheme.kind, scheme.granularity]
    lowest, highest = code_range(scheme.weight_bits)
    return torch_ao.QConfig(
        activation=MinMaxObserver.with_args(
            dtype=torch.quint8, reduce_range=reduce_range, eps=NO_FLOOR
        ),
        weight=observer.with_args(
            dtype=torch.qint8, qscheme=qscheme, quant_min=lowest, quant_max=highest, eps=NO_FLOOR
        ),
    )


def converted_by_torch(prepared: Any, engine: str) -> Any:
    """The int8 network of an observed one; NotQuantizableError where torch.ao fails."""
    try:
        with running_on(engine):
            return torch_ao.convert_fx(prepared)
    except Exception as error:
        raise refusal(error) from error


def refusal(error: Exception) -> NotQuantizableError:
    """A user's network may break tracing or conversion in any way; the reason is reported."""
    if isinstance(error, NotQuantizableError):
        return error
    return NotQuantizableError(f"torch.ao cannot quantize this network: {reason(error)}")


def quantized_layers(converted: nn.Module) -> list[tuple[str, Any]]:
    """Names and modules of the integer layers of a converted network."""
    return [
        (name, module)
        for name, module in converted.named_modules()
        if isinstance(module, torch_ao.WeightedQuantizedModule)
    ]


def _store_own_codes(
    converted: nn.Module, network: nn.Module, scheme: Scheme, input_scales: Mapping[str, float]
) -> None:
    """Put the codes of `qwd.quantize.arithmetic`, and biases in their steps, into integer layers.

    torch multiplies by the reciprocal of the scale where qwd and ONNX Runtime divide by it, so a
    weight half way between two codes may get the other one.
    """
    for name, packed in quantized_layers(converted):
        layer: Any = network.get_submodule(name)
        with torch_ao.quiet():
            stored = packed.weight()
        axis = None
        if stored.qscheme() not in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            axis = stored.q_per_channel_axis()
        own = quantize(layer.weight, kind=scheme.kind, bits=scheme.weight_bits, axis=axis)
        bias = packed.bias()
        if bias is not None and name in input_scales:
            bias = ao_graph.integer_bias(bias.detach(), input_scales[name], own.scale)
        store_weight(packed, own.values.float(), own.scale, own.zero_point, axis, bias)


def store_weight(
    packed: Any,
    values: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int | None,
    bias: Tensor | None,
) -> None:
    """Give an integer layer other weights, on the grid of ``scale`` and ``zero_point``, and a bias.

    On the grid no rounding can take another code. A tensor of zeros has no scale; any positive one
    holds it. Below its normal numbers float32 has none.
    """
    scale = scale.clamp(min=NO_FLOOR)
    with torch_ao.quiet():
        if axis is None:
            weight = torch.quantize_per_tensor(values, scale, zero_point, torch.qint8)
        else:
            weight = torch.quantize_per_channel(values, scale, zero_point, axis, torch.qint8)
        packed.set_weight_bias(weight, bias)


def _is_torchs_own(scheme: Scheme) -> bool:
    return replace(scheme, engine=None) == AO_DEFAULT


def _reduces_range(mapping: Any) -> bool:
    return bool(getattr(mapping.global_qconfig.activation(), "reduce_range", False))


def _floor(mapping: Any) -> float:
    return float(mapping.global_qconfig.weight().eps)


def _observers(mapping: Any) -> str:
    config = mapping.global_qconfig
    activation, weight = type(config.activation()).__name__, type(config.weight()).__name__
    return f"{activation} (activations), {weight} (weights)"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
