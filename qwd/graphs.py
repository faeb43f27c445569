"""The graph of a network's calls, as torch.fx traces it."""

import inspect
from typing import Any

from torch import fx, nn

from qwd.errors import reason


class UntraceableError(Exception):
    """torch.fx cannot trace a network; the text says why, on one line."""


def traced(module: nn.Module) -> fx.Graph:
    """The graph of ``module.forward`` with its plain options at their defaults.

    Raises UntraceableError; tracing runs the user's forward, which may raise anything.
    """
    try:
        return fx.Tracer().trace(module, concrete_args=_defaults(module))
    except Exception as error:
        name = type(module).__name__
        raise UntraceableError(f"torch.fx cannot trace {name} ({reason(error)})") from error


def _defaults(module: nn.Module) -> dict[str, Any] | None:
    """Options of ``forward`` at their defaults: a graph is of one setting of its flags."""
    options = list(inspect.signature(module.forward).parameters.values())[1:]
    plain = (bool, int, float, str, type(None))
    return {o.name: o.default for o in options if isinstance(o.default, plain)} or None
