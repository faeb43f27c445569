"""Does this decay keep ranges more compact, and does it help int8? With tests and uncertainty.

`verdict` judges models, `certify` and `certified` add what a rescaled network predicts. What they
say is plain data: `qwd.report.verdict.figures`. Importing this package imports no torch or scipy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwd.report.verdict.certificate import Certifier, certified, certify
    from qwd.report.verdict.judging import judge, verdict

__all__ = ["Certifier", "certified", "certify", "judge", "verdict"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "certificate" if name.lower().startswith("certif") else "judging"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
