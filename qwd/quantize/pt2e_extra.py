"""What qwd uses of torchao, the extra `pt2e`: the only module that imports it.

Raises UsageError with the install command where it is missing, or of another torch's time.
"""

from importlib.metadata import version

import torch

from qwd.errors import UsageError, extra
from qwd.quantize.quiet import quiet

with extra("pt2e"), quiet():
    try:
        import torchao
        from torchao.quantization.pt2e.lowering import lower_pt2e_quantized_to_x86
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
            X86InductorQuantizer,
            get_default_x86_inductor_quantization_config,
        )
    except AttributeError as error:
        # It reaches for parts of torch that have moved since, or are not there yet.
        raise UsageError(
            f"torchao {version('torchao')} does not fit torch {torch.__version__}: "
            "pip install --upgrade 'qwd[pt2e]'"
        ) from error

__all__ = [
    "X86InductorQuantizer",
    "convert_pt2e",
    "get_default_x86_inductor_quantization_config",
    "lower_pt2e_quantized_to_x86",
    "prepare_pt2e",
    "torchao",
]
