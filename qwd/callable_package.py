"""A package that can be called: `qwd.train(config)` beside `qwd.train.models`."""

import sys
import types
from typing import Any

from qwd.registry import resolve


def make_callable(package: str, target: str) -> None:
    """Let calling the imported ``package`` call ``module:function``, imported at the first call."""

    class CallablePackage(types.ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return resolve(target)(*args, **kwargs)

    sys.modules[package].__class__ = CallablePackage
