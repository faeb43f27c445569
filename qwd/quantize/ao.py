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
from torch.nn import functional as F

from qwd.errors import reason
from qwd.quantize import ao_graph, torch_ao
from qwd.quantize.ao_engines import check, engine_for, is_torchs_own
from qwd.quantize.arithmetic import code_range, quantize
from qwd.quantize.backend import Backend, Description, NotQuantizableError
from qwd.quantize.floors import floor_warning
from qwd.quantize.parameter_names import left_float
from qwd.quantize.schemes import Scheme
from qwd.quantize.torch_ao import MinMaxObserver, PerChannelMinMaxObserver, running_on

LEFT_IN_FLOAT = (
    # torch's x86 kernels for them return other numbers at every call.
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
    # A weight outside of a layer has no place for qwd's codes, and some calls break torch.ao.
    *(F.conv1d, F.conv2d, F.conv3d, F.linear),
)
"""Layers and functions with weights that no integer kernel is asked for."""

WRONG_KERNELS = (
    nn.PReLU,  # its slopes are stored with the zero point of another type
    # Their outputs are on a scale of their own making.
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, F.instance_norm),
)
"""What torch.ao would give integer kernels that compute something else."""

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

    def check(self, scheme: Scheme) -> None:
        """See `qwd.quantize.backend.Backend`."""
        check(scheme)

    def prepare(self, network: nn.Module, scheme: Scheme, example: Tensor) -> Observed:
        """Insert observers; see `qwd.quantize.backend.Backend`."""
        engine, narrow, notes = engine_for(network, scheme)
        with running_on(engine):
            if is_torchs_own(scheme):
                mapping = torch_ao.get_default_qconfig_mapping(engine)
                narrow = _reduces_range(mapping)
                floor = floor_warning(network, scheme, _floor(mapping), "torch's observer")
                notes += [floor] if floor else []
            else:
                config = qconfig(scheme, reduce_range=narrow)
                mapping = torch_ao.QConfigMapping().set_global(config)
            leave_in_float(mapping)
            try:
                plain = ao_graph.rewired(
                    copy.deepcopy(network).eval(), averages_in_float=not is_torchs_own(scheme)
                )
                module = torch_ao.prepare_fx(
                    plain,
                    mapping,
                    (example,),
                    prepare_custom_config=torch_ao.leaves(ao_graph.Hidden),
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
        own = not is_torchs_own(prepared.scheme)
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
        quantized = [name for name, _ in quantized_layers(converted.module)]
        notes = converted.warnings
        if hidden := ao_graph.hidden(converted.module, WRONG_KERNELS):
            notes = [
                *notes,
                f"{converted.scheme.name}: left in float, as torch.ao's integer kernels compute "
                f"something else: {', '.join(hidden)}",
            ]
        return Description(
            activation_bits=converted.activation_bits,
            engine=converted.engine,
            observer=converted.observer,
            quantized=tuple(sorted(quantized)),
            left_float=tuple(left_float(converted.network, quantized)),
            warnings=tuple(notes),
        )


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


def leave_in_float(mapping: Any) -> None:
    """Take what has no integer kernel, or a wrong one, out of a QConfigMapping."""
    for kind in (*LEFT_IN_FLOAT, *WRONG_KERNELS):
        mapping.set_object_type(kind, None)


def converted_by_torch(prepared: Any, engine: str) -> Any:
    """The int8 network of an observed one, which is used up.

    Raises NotQuantizableError where torch.ao fails.
    """
    ao_graph.hide(prepared, WRONG_KERNELS)
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


def _reduces_range(mapping: Any) -> bool:
    return bool(getattr(mapping.global_qconfig.activation(), "reduce_range", False))


def _floor(mapping: Any) -> float:
    return float(mapping.global_qconfig.weight().eps)


def _observers(mapping: Any) -> str:
    config = mapping.global_qconfig
    activation, weight = type(config.activation()).__name__, type(config.weight()).__name__
    return f"{activation} (activations), {weight} (weights)"
