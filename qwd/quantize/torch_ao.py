"""The one door to torch.ao.quantization: what qwd uses of it, and its warnings kept quiet.

torch.ao marks itself deprecated in favour of torchao, whose PT2E kernels take symmetric weights
only; with every name imported here, the day it goes touches one file.
"""

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch.fx import config

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.ao.nn.quantized.modules.utils import WeightedQuantizedModule
    from torch.ao.quantization import (
        FakeQuantize,
        MinMaxObserver,
        MovingAverageMinMaxObserver,
        PerChannelMinMaxObserver,
        QConfig,
        QConfigMapping,
        get_default_qconfig_mapping,
    )
    from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx, prepare_qat_fx

__all__ = [
    "ENGINES",
    "FakeQuantize",
    "MinMaxObserver",
    "MovingAverageMinMaxObserver",
    "PerChannelMinMaxObserver",
    "QConfig",
    "QConfigMapping",
    "WeightedQuantizedModule",
    "convert_fx",
    "get_default_qconfig_mapping",
    "leaves",
    "prepare_fx",
    "prepare_qat_fx",
    "quiet",
    "running_on",
]

ENGINES = ("x86", "fbgemm", "onednn", "qnnpack")
"""Sets of integer kernels, in order of preference."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the deprecation of all of it.

    And what torch's deterministic mode says of the resizing of integer tensors, which leaves
    nothing to chance. No node of a graph keeps the calls that led to it, nobody's here, for which
    torch would import its compiler.
    """
    mode = torch.get_deterministic_debug_mode()
    traces = getattr(config, "do_not_emit_stack_traces", None)  # since torch 2.12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_deterministic_debug_mode("default")
        config.do_not_emit_stack_traces = True
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(mode)
            config.do_not_emit_stack_traces = bool(traces)


@contextlib.contextmanager
def running_on(engine: str) -> Iterator[None]:
    """Select a quantized engine inside, quietly."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        with quiet():
            yield
    finally:
        torch.backends.quantized.engine = before


def leaves(*classes: type) -> PrepareCustomConfig:
    """Settings under which modules of these classes are not looked into."""
    return PrepareCustomConfig().set_non_traceable_module_classes(list(classes))
