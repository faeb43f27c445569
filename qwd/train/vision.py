"""torchvision's data sets, transforms and models: the only module that imports it.

PyPI's wheels are compiled for CUDA builds of torch. Beside another build their operators do not
load, and `import torchvision` fails where it describes two of them, nms and qnms. Nothing used
here needs the operators, so their schemas are declared in that case and the import is repeated.
"""

import importlib
import sys
import warnings

import torch

from qwd.errors import UsageError

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# An operator lives as long as the library object that declared it.
_declared: list[torch.library.Library] = []


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + SCHEMA)
    _declared.append(library)


def _forget_half_import() -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


def _import_torchvision() -> None:
    """Leave a complete torchvision in ``sys.modules``.

    The plain import comes first: where the compiled operators load, they declare themselves, and
    a second declaration would clash. Raises UsageError where neither way works.
    """
    # Builds without the operators or the image codecs warn; neither is used here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            try:
                importlib.import_module("torchvision")
            except RuntimeError:
                _forget_half_import()
                _declare_operators()
                importlib.import_module("torchvision")
            importlib.import_module("torchvision.transforms.v2.functional")
        except Exception as error:
            _forget_half_import()
            if isinstance(error, ModuleNotFoundError) and error.name == "torchvision":
                line = "torchvision is not installed: pip install torchvision"
            else:
                line = (
                    f"torchvision cannot be imported beside torch {torch.__version__}; install the "
                    f"release made for it, pip install torchvision ({' '.join(str(error).split())})"
                )
            raise UsageError(line) from error


_import_torchvision()

from torchvision import datasets, models, transforms  # noqa: E402
from torchvision.transforms.v2 import functional  # noqa: E402

__all__ = ["datasets", "functional", "models", "transforms"]
