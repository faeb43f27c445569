"""qwd: train with a weight decay, quantize to 8 bits with scale = (b-a)/255, report, compare.

>>> run = qwd.train(qwd.TrainConfig(wd=1e-4))
>>> print(qwd.report(run.path))
>>> print(qwd.compare("base.json", "head.json"))

Importing qwd does not import torch; the functions do, when they are called.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwd import decay, export
    from qwd.config import TrainConfig
    from qwd.report.compare import compare_files as compare
    from qwd.report.entry import report
    from qwd.sweep.session import sweep
    from qwd.train.session import train

__all__ = ["TrainConfig", "compare", "decay", "export", "report", "sweep", "train"]

_ATTRIBUTES = {
    "TrainConfig": ("qwd.config", "TrainConfig"),
    "compare": ("qwd.report.compare", "compare_files"),
}


def __getattr__(name: str) -> Any:
    if name in _ATTRIBUTES:
        module, attribute = _ATTRIBUTES[name]
        return getattr(importlib.import_module(module), attribute)
    if name in __all__:
        return importlib.import_module(f"qwd.{name}")
    raise AttributeError(f"module 'qwd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
