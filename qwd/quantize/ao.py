"""torch.ao.quantization, the int8 backend: the only module that imports it.

FX graph mode, post-training, static. The weights are quantized by qwd's own QConfig (`affine` or
`symmetric`, per tensor or channel, qint8), the activations as quint8 with a histogram observer,
and the result runs on real int8 kernels. ``ao-default`` is torch's own x86 configuration, kept as
it is: symmetric weights per channel and 7-bit activations.

torch.ao marks itself deprecated in favour of torchao, whose PT2E kernels take symmetric weights
only; its warnings are silenced here.
"""

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.ao.nn.quantized.modules.utils import WeightedQuantizedModule
    from torch.ao.quantization import (
        HistogramObserver,
        MinMaxObserver,
        PerChannelMinMaxObserver,
        QConfig,
        QConfigMapping,
        get_default_qconfig_mapping,
    )
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from qwd.errors import VerificationError, reason
from qwd.quantize.arithmetic import quantize
from qwd.quantize.backend import LAYERS, NotQuantizableError, QuantizedNetwork
from qwd.quantize.schemes import AO_DEFAULT, Scheme

ENGINES = ("x86", "fbgemm", "qnnpack")
"""In order of preference; oneDNN alone takes symmetric weights only."""

WEIGHT_QSCHEMES = {
    ("affine", "tensor"): (MinMaxObserver, torch.per_tensor_affine),
    ("affine", "channel"): (PerChannelMinMaxObserver, torch.per_channel_affine),
    ("symmetric", "tensor"): (MinMaxObserver, torch.per_tensor_symmetric),
    ("symmetric", "channel"): (PerChannelMinMaxObserver, torch.per_channel_symmetric),
}


class TorchAO:
    """torch.ao FX static quantization: int8 kernels on the CPU (x86, fbgemm or qnnpack)."""

    def quantize(
        self, network: nn.Module, scheme: Scheme, calibration: Sequence[Tensor]
    ) -> QuantizedNetwork:
        """Prepare, calibrate and convert; see `qwd.quantize.backend.Backend`.

        Raises VerificationError when no layer was quantized.
        """
        engine = next((e for e in ENGINES if e in torch.backends.quantized.supported_engines), None)
        if engine is None:
            raise NotQuantizableError(
                f"this build of torch has none of the engines {', '.join(ENGINES)}"
            )
        notes: list[str] = []
        with running_on(engine):
            if scheme == AO_DEFAULT:
                mapping = get_default_qconfig_mapping(engine)
                activation_bits = 7 if _reduces_range(mapping) else 8
            else:
                narrow = accumulators_saturate()
                activation_bits = 7 if narrow else 8
                if narrow:
                    notes.append(
                        f"{scheme.name}: 8-bit activations saturate on this processor (no VNNI), "
                        "so they were cut to 7 bits"
                    )
                mapping = QConfigMapping().set_global(qconfig(scheme, reduce_range=narrow))
            converted = _converted(network, mapping, calibration)
            if scheme != AO_DEFAULT:
                _store_own_codes(converted, network, scheme)
            observer = _observers(mapping)
        layers = {name for name, module in network.named_modules() if isinstance(module, LAYERS)}
        quantized = {
            name
            for name, module in converted.named_modules()
            if isinstance(module, WeightedQuantizedModule)
        }
        if not quantized:
            raise VerificationError(f"{scheme.name}: torch.ao quantized nothing in this network")
        return QuantizedNetwork(
            network=OnEngine(converted, engine),
            device=torch.device("cpu"),
            activation_bits=activation_bits,
            engine=engine,
            observer=observer,
            quantized_ops=len(quantized),
            left_float=tuple(sorted(layers - quantized)),
            warnings=tuple(notes),
        )


class OnEngine(nn.Module):
    """Runs a converted network on the engine its weights were packed for."""

    def __init__(self, converted: nn.Module, engine: str):
        super().__init__()
        self.converted = converted
        self.engine = engine

    def forward(self, images: Tensor) -> Tensor:
        """The converted network's output, in float32."""
        with running_on(self.engine):
            return self.converted(images)


def qconfig(scheme: Scheme, *, reduce_range: bool = False) -> QConfig:
    """qwd's QConfig: weights by ``scheme`` with the true scale, activations quint8.

    torch's observer floors the scale of weights at 1.19e-7; the smallest normal float32 stands
    here instead, so that scale = (b-a)/255 holds for layers of tiny weights too.
    """
    observer, qscheme = WEIGHT_QSCHEMES[scheme.kind, scheme.granularity]
    return QConfig(
        activation=HistogramObserver.with_args(dtype=torch.quint8, reduce_range=reduce_range),
        weight=observer.with_args(
            dtype=torch.qint8, qscheme=qscheme, eps=torch.finfo(torch.float32).tiny
        ),
    )


@contextlib.contextmanager
def running_on(engine: str) -> Iterator[None]:
    """Select a quantized engine inside, and keep quiet about the deprecation of all of it."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.quantized.engine = before


def accumulators_saturate() -> bool:
    """Whether the current engine's kernels lose large sums of 8-bit products.

    Without VNNI, x86 kernels add two products of an unsigned and a signed byte in 16 bits. A
    convolution of the largest activations and weights shows it: its sum must come out whole.
    """
    channels, kernel = 32, 3
    total = 255 * 127 * channels * kernel * kernel
    images = torch.full([1, channels, kernel, kernel], 255.0)
    weights = torch.full([channels, channels, kernel, kernel], 127.0)
    packed = torch.ops.quantized.conv2d_prepack(
        torch.quantize_per_tensor(weights, 1.0, 0, torch.qint8), None, [1, 1], [0, 0], [1, 1], 1
    )
    found = torch.ops.quantized.conv2d(
        torch.quantize_per_tensor(images, 1.0, 0, torch.quint8), packed, total / 255, 0
    )
    return bool((found.int_repr() != 255).any())


def _converted(network: nn.Module, mapping: QConfigMapping, calibration: Sequence[Tensor]) -> Any:
    try:
        prepared = prepare_fx(copy.deepcopy(network).eval(), mapping, (calibration[0],))
        with torch.no_grad():
            for images in calibration:
                prepared(images)
        return convert_fx(prepared)
    except Exception as error:
        # A user's network may break tracing or conversion in any way; the reason is reported.
        raise NotQuantizableError(
            f"torch.ao cannot quantize this network: {reason(error)}"
        ) from error


def _store_own_codes(converted: nn.Module, network: nn.Module, scheme: Scheme) -> None:
    """Put the codes of `qwd.quantize.arithmetic` into the integer layers.

    torch multiplies by the reciprocal of the scale where qwd and ONNX Runtime divide by it, so a
    weight half way between two codes may get the other one.
    """
    for name, module in converted.named_modules():
        if not isinstance(module, WeightedQuantizedModule):
            continue
        packed: Any = module
        layer: Any = network.get_submodule(name)
        stored = packed.weight()
        axis = None
        if stored.qscheme() != torch.per_tensor_affine:
            axis = stored.q_per_channel_axis()
        own = quantize(layer.weight, kind=scheme.kind, axis=axis)
        # The values lie on the grid, so that no rounding can take another code. A tensor of zeros
        # has no scale; any positive one holds it. Below its normal numbers float32 has none.
        values = own.values.float()
        scale = own.scale.clamp(min=torch.finfo(torch.float32).tiny)
        if axis is None:
            weight = torch.quantize_per_tensor(values, scale, own.zero_point, torch.qint8)
        else:
            weight = torch.quantize_per_channel(values, scale, own.zero_point, axis, torch.qint8)
        packed.set_weight_bias(weight, packed.bias())


def _reduces_range(mapping: Any) -> bool:
    return bool(getattr(mapping.global_qconfig.activation(), "reduce_range", False))


def _observers(mapping: Any) -> str:
    config = mapping.global_qconfig
    activation, weight = type(config.activation()).__name__, type(config.weight()).__name__
    return f"{activation} (activations), {weight} (weights)"
