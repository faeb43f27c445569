"""The graphs of PT2E: recorded with observers, then with quantize and dequantize operators."""

import copy
from typing import Any

from torch import Tensor, nn

from qwd.errors import reason
from qwd.quantize.backend import NotQuantizableError
from qwd.quantize.program import exported_program
from qwd.quantize.pt2e_extra import (
    X86InductorQuantizer,
    convert_pt2e,
    get_default_x86_inductor_quantization_config,
    prepare_pt2e,
)
from qwd.quantize.quiet import quiet


def observed_graph(network: nn.Module, example: Tensor, *, narrow: bool) -> Any:
    """A recorded copy of ``network`` with observers, as a GraphModule.

    ``example`` is a batch of images [N, C, H, W]; ``narrow`` cuts activations to 7 bits. Raises
    NotQuantizableError where torch.export cannot record the network, or the quantizer not read it.
    """
    quantizer = X86InductorQuantizer().set_global(_configuration(narrow))
    try:
        with quiet():
            # The recorded network shares its weights with the one that it was made of.
            program = _recorded(copy.deepcopy(network), example)
            return prepare_pt2e(program.module(), quantizer)
    except Exception as error:
        raise refusal(error) from error


def with_codes(observed: Any) -> Any:
    """A calibrated graph with its weights as codes, between quantize and dequantize operators.

    ``observed`` is left as it is. Raises NotQuantizableError as `observed_graph`.
    """
    try:
        with quiet():
            graph: Any = convert_pt2e(copy.deepcopy(observed))
    except Exception as error:
        raise refusal(error) from error
    # The weights in float are still there, beside their codes.
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in graph.named_parameters() if name not in used]:
        owner, _, attribute = name.rpartition(".")
        delattr(graph.get_submodule(owner), attribute)
    return graph


def observers() -> str:
    """What finds the ranges, for a report."""
    activation, weight = _activation_observer(), _weight_observer()
    return f"{type(activation).__name__} (activations), {type(weight).__name__} (weights)"


def smallest_scale() -> float:
    """Scales below it are raised to it, of weights and of activations."""
    return float(_weight_observer().eps)


def activation_scales(observed: Any) -> dict[str, float]:
    """The true scales of what a calibrated graph quantizes, (b - a) / 255, by name of its node."""
    scales = {}
    for node in observed.graph.nodes:
        module: Any = observed.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(module, type(_activation_observer())):
            range = max(module.max_val.item(), 0.0) - min(module.min_val.item(), 0.0)
            scales[node.args[0].name] = range / (module.quant_max - module.quant_min)
    return scales


def quantized_parameters(observed: Any, network: nn.Module) -> list[str]:
    """Names of the parameters of ``network`` that an observer of weights is on."""
    weight_observer = type(_weight_observer())
    found = {
        str(node.args[0].target)
        for node in observed.graph.nodes
        if node.op == "call_module"
        and isinstance(observed.get_submodule(node.target), weight_observer)
    }
    tied = {id(network.get_parameter(name)) for name in found}
    parameters = network.named_parameters(remove_duplicate=False)
    return [name for name, parameter in parameters if id(parameter) in tied]


def refusal(error: Exception) -> NotQuantizableError:
    """A user's network may break recording or conversion in any way; the reason is reported."""
    return NotQuantizableError(f"PT2E cannot quantize this network: {reason(error)}")


def _recorded(network: nn.Module, example: Tensor) -> Any:
    # The quantizer asks which module an operator is of: before torch 2.13 that is known of strictly
    # recorded networks alone, and of functions it still is.
    try:
        return exported_program(network, example, strict=True)
    except Exception:
        return exported_program(network, example)


def _configuration(narrow: bool = False) -> Any:
    return get_default_x86_inductor_quantization_config(reduce_range=narrow)


def _activation_observer() -> Any:
    with quiet():
        return _configuration().input_activation.observer_or_fake_quant_ctr()


def _weight_observer() -> Any:
    with quiet():
        return _configuration().weight.observer_or_fake_quant_ctr()
