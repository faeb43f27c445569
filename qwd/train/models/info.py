"""What a model says of itself, beside its builder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

Builder = TypeVar("Builder", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """``parameters`` counts trainable scalars for the input and classes stated with it."""

    parameters: int
    source: str
    in_channels: int = 3
    image_size: int = 32
    num_classes: int = 10


def described(**fields: Any) -> Callable[[Builder], Builder]:
    """Decorator that gives a builder ``info``, a `ModelInfo` of these fields, and a ``summary``.

    The summary is the first line of the builder's docstring with the size and the source.
    """
    info = ModelInfo(**fields)

    def attach(builder: Builder) -> Builder:
        line = (builder.__doc__ or "").strip().split("\n")[0].rstrip(".")
        target = cast(Any, builder)
        target.info = info
        target.summary = (
            f"{line}; {info.parameters:,} parameters for {info.in_channels}x{info.image_size}x"
            f"{info.image_size} and {info.num_classes} classes ({info.source})"
        )
        return builder

    return attach
