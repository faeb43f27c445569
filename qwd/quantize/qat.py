"""Quantization-aware training: torch.ao's FX fake quantization with qwd's QConfig.

While training, every convolution and linear layer computes with its quantized weights, BatchNorm
folded in, and every activation passes through the grid that its int8 kernel will have; gradients
go through the rounding as if it were not there. The network that is trained shares its parameters
and statistics with the float one it was made of, which so stays up to date.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from qwd.quantize import ao_graph, torch_ao
from qwd.quantize.ao import (
    NO_FLOOR,
    WEIGHT_QSCHEMES,
    Observed,
    TorchAO,
    converted_by_torch,
    leave_in_float,
    quantized_layers,
    refusal,
    store_weight,
)
from qwd.quantize.ao_engines import check, engine_for
from qwd.quantize.arithmetic import code_range
from qwd.quantize.backend import QuantizedNetwork, described
from qwd.quantize.fake import FakeQuantize
from qwd.quantize.schemes import Scheme
from qwd.quantize.statistics import sqnr_db

OBSERVER = "present min and max (weights), moving averages of min and max (activations)"


class PresentRange(torch_ao.MinMaxObserver):
    """The range of the weights of this very step: torch's observers remember former ones."""

    def forward(self, x_orig: Tensor) -> Tensor:
        """Forget, observe, and pass ``x_orig`` on."""
        self.reset_min_max_vals()
        return super().forward(x_orig)


class PresentChannelRange(torch_ao.PerChannelMinMaxObserver):
    """As `PresentRange`, per channel."""

    def forward(self, x_orig: Tensor) -> Tensor:
        """Forget, observe, and pass ``x_orig`` on."""
        self.reset_min_max_vals()
        return super().forward(x_orig)


def prepare(network: nn.Module, scheme: Scheme, example: Tensor) -> Any:
    """The network to train: an fx.GraphModule that shares parameters and buffers with ``network``.

    ``network`` is float32, not deployed but for fused branches, and on the device where it will be
    trained, as ``example`` [N, C, H, W] is. Fake quantization is on, ranges are observed. Raises
    NotQuantizableError where torch.ao cannot carry the network or the scheme.

    Source: B. Jacob et al. (CVPR 2018), section 3.
    """
    check(scheme)
    _, narrow, _ = engine_for(network, scheme)
    mapping = torch_ao.QConfigMapping().set_global(qconfig(scheme, reduce_range=narrow))
    leave_in_float(mapping)
    training = network.training
    try:
        with torch_ao.quiet():
            prepared = torch_ao.prepare_qat_fx(network.train(), mapping, (example,))
    except Exception as error:
        raise refusal(error) from error
    finally:
        network.train(training)
    return prepared.to(example.device)


def qconfig(scheme: Scheme, *, reduce_range: bool = False) -> Any:
    """qwd's QConfig for training: fake quantization of weights by ``scheme``, of activations in 8
    bits; no floor under the scales.
    """
    per_channel = scheme.granularity == "channel"
    _, qscheme = WEIGHT_QSCHEMES[scheme.kind, scheme.granularity]
    lowest, highest = code_range(scheme.weight_bits)
    return torch_ao.QConfig(
        activation=torch_ao.FakeQuantize.with_args(
            observer=torch_ao.MovingAverageMinMaxObserver,
            dtype=torch.quint8,
            quant_min=0,
            quant_max=127 if reduce_range else 255,
            eps=NO_FLOOR,
        ),
        weight=torch_ao.FakeQuantize.with_args(
            observer=PresentChannelRange if per_channel else PresentRange,
            dtype=torch.qint8,
            qscheme=qscheme,
            quant_min=lowest,
            quant_max=highest,
            eps=NO_FLOOR,
        ),
    )


def freeze(prepared: nn.Module, *, ranges: bool, norms: bool) -> None:
    """Hold the ranges of all grids, and the statistics of all BatchNorms, as they are.

    Once held they stay so; call it after ``prepared.train()``, which wakes some BatchNorms.
    """
    for module in prepared.modules():
        if ranges and isinstance(module, torch_ao.FakeQuantize):
            module.disable_observer()
        if norms and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


@contextlib.contextmanager
def unobserved(prepared: nn.Module) -> Iterator[None]:
    """Images that pass inside move no range: torch's observers also look in evaluation mode."""
    watching = [
        module
        for module in prepared.modules()
        if isinstance(module, torch_ao.FakeQuantize) and module.observer_enabled.item()
    ]
    for module in watching:
        module.disable_observer()
    try:
        yield
    finally:
        for module in watching:
            module.enable_observer()


@dataclass(frozen=True)
class Converted:
    """A trained network on int8 kernels, and how far its weights are from the float ones."""

    network: QuantizedNetwork
    sqnr: dict[str, float | None]
    """in dB, over all weights: ``training_sqnr_db`` of those that training computed with,
    ``converted_sqnr_db`` of those of the int8 kernels; None without error"""


@torch.no_grad()
def convert(prepared: Any, scheme: Scheme) -> Converted:
    """The int8 network of a copy of ``prepared``, which may be on any device and goes on training.

    The SQNR is 10 log10(sum w^2 / sum (w' - w)^2) in dB, w the float weights with BatchNorm folded
    in. Raises NotQuantizableError, and VerificationError where nothing was quantized.
    """
    trained = copy.deepcopy(prepared).cpu().eval()
    engine, narrow, notes = engine_for(trained, scheme)
    grids = {name: layer.weight_fake_quant for name, layer in _trained_layers(trained)}
    weights = {name: _plain(layer).weight for name, layer in _trained_layers(trained)}
    with unobserved(trained):
        in_training = {name: grids[name](weight) for name, weight in weights.items()}
    # Where the range is not frozen, that of the weights as they are now.
    at_last = {name: grids[name](weight) for name, weight in weights.items()}
    input_scales = ao_graph.input_scales(trained)
    module = converted_by_torch(copy.deepcopy(trained), engine)
    for name, packed in quantized_layers(module):
        # torch rounds the weights anew, and not to fewer than 8 bits.
        grid = _own(grids[name])
        scale, zero_point, bias = grid.scale, grid.zero_point, packed.bias()
        if bias is not None and name in input_scales:
            bias = ao_graph.integer_bias(bias.detach(), input_scales[name], scale)
        with torch_ao.running_on(engine):  # packed anew, for one engine
            store_weight(packed, at_last[name], scale, zero_point, grid.axis, bias)
    made = Observed(module, trained, scheme, engine, 7 if narrow else 8, OBSERVER, notes)
    return Converted(
        network=described(TorchAO(), made, scheme),
        sqnr={
            "training_sqnr_db": _sqnr(weights, in_training),
            "converted_sqnr_db": _sqnr(weights, at_last),
        },
    )


@torch.no_grad()
def reference(prepared: Any) -> nn.Module:
    """A copy in float for other runtimes, its grids as `qwd.quantize.fake.FakeQuantize` modules.

    BatchNorm is folded into plain layers, whose weights are parametrized by their grids; in eval
    mode, on the CPU.
    """
    copied = copy.deepcopy(prepared).cpu().eval()
    for _, layer in _trained_layers(copied):
        layer.weight_fake_quant(_plain(layer).weight)
    made: dict[int, nn.Module] = {}
    for name, layer in list(_trained_layers(copied)):
        float_layer = _float_form(layer)
        grid = _own(layer.weight_fake_quant)
        parametrize.register_parametrization(_inner(float_layer), "weight", grid, unsafe=True)
        if isinstance(float_layer, nn.Sequential):
            float_layer = nn.Sequential(*float_layer)
        _put(copied, name, float_layer.eval())
    for name, module in list(copied.named_modules(remove_duplicate=False)):
        if isinstance(module, torch_ao.FakeQuantize):
            _put(copied, name, made.setdefault(id(module), _own(module)))
    return copied


def state(prepared: nn.Module) -> dict[str, Tensor]:
    """The ranges and grids, which the float network does not have, by name."""
    return {
        f"{name}.{key}": value
        for name, module in _fake_quantizers(prepared).items()
        for key, value in module.state_dict().items()
    }


def load_state(prepared: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Go back to the ranges and grids of `state`; RuntimeError where they are of another one."""
    left = dict(stored)
    for name, module in _fake_quantizers(prepared).items():
        own = {key: left.pop(f"{name}.{key}", None) for key in module.state_dict()}
        missing = [key for key, value in own.items() if value is None]
        if missing:
            raise RuntimeError(f"{name}.{missing[0]} is missing")
        module.load_state_dict(own)
    if left:
        raise RuntimeError(f"{next(iter(left))} belongs to no layer")


def _fake_quantizers(prepared: nn.Module) -> dict[str, nn.Module]:
    found = prepared.named_modules()
    return {name: m for name, m in found if isinstance(m, torch_ao.FakeQuantize)}


def _trained_layers(prepared: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in prepared.named_modules():
        if hasattr(module, "weight_fake_quant"):
            yield name, module


def _float_form(layer: Any) -> nn.Module:
    with torch_ao.quiet():
        return layer.to_float()


def _plain(layer: Any) -> Any:
    """The convolution or linear layer with BatchNorm folded in."""
    return _inner(_float_form(layer))


def _inner(float_layer: Any) -> Any:
    """The layer itself where a ReLU is fused behind it."""
    return float_layer[0] if isinstance(float_layer, nn.Sequential) else float_layer


def _own(grid: Any) -> FakeQuantize:
    per_channel = grid.scale.numel() > 1 or grid.ch_axis != -1
    shape = (-1,) if per_channel else ()
    return FakeQuantize(
        grid.scale.reshape(shape),
        grid.zero_point.reshape(shape),
        qmin=int(grid.activation_post_process.quant_min),
        qmax=int(grid.activation_post_process.quant_max),
        axis=grid.ch_axis if per_channel else None,
    )


def _put(module: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, part)


def _sqnr(weights: dict[str, Tensor], other: dict[str, Tensor]) -> float | None:
    signal = sum(w.double().square().sum().item() for w in weights.values())
    noise = sum((other[n] - w).double().square().sum().item() for n, w in weights.items())
    return sqnr_db(signal, noise)
