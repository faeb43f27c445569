"""Models that others wrote: torchvision's and the user's own, with their mistakes explained."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from qwd.errors import QwdError, UsageError
from qwd.train.user_code import cause, imported

Builder = Callable[..., Any]


def from_torchvision(name: str) -> Builder:
    """The builder of a torchvision classifier, without pretrained weights.

    Raises UsageError with the nearest names where torchvision has no such classifier.
    """
    from qwd.train.vision import models

    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or ["resnet18", "mobilenet_v2"]
        raise UsageError(
            f"--model torchvision:{name}: torchvision has no such classifier; it has "
            f"{', '.join(near)} and others"
        )
    make = models.get_model_builder(name)

    def builder(*, image_size: int, num_classes: int) -> nn.Module:
        return make(weights=None, num_classes=num_classes, **_family_options(name, image_size))

    return builder


def _family_options(name: str, image_size: int) -> dict[str, Any]:
    match name.partition("_")[0]:
        case "vit":
            return {"image_size": image_size}
        case "maxvit":
            return {"input_size": (image_size, image_size)}
        case "googlenet" | "inception":
            # Auxiliary heads would make the output a tuple in training.
            return {"aux_logits": False, "init_weights": True}
        case _:
            return {}


def from_path(path: str) -> Builder:
    """The user's callable at ``package.module:callable``; see `qwd.train.user_code.imported`.

    Raises UsageError where the object is no callable that builds a model.
    """
    found = imported("--model", path)
    if isinstance(found, nn.Module) or not callable(found):
        kind = "a model already built" if isinstance(found, nn.Module) else type(found).__name__
        raise UsageError(
            f"--model {path}: is {kind}; expected a class or function that returns an nn.Module"
        )
    return found


def called(name: str, builder: Builder, sizes: Mapping[str, int]) -> nn.Module:
    """The model that ``builder`` returns for those of ``sizes`` that its signature accepts.

    Raises UsageError where it raises anything, or returns no nn.Module.
    """
    try:
        model = builder(**_accepted(builder, sizes))
    except QwdError:
        raise
    except Exception as error:
        given = ", ".join(f"{key}={value}" for key, value in sizes.items())
        raise UsageError(f"--model {name}: cannot be built for {given}: {cause(error)}") from error
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"--model {name}: returned {type(model).__name__}; expected a torch.nn.Module"
        )
    return model


def _accepted(builder: Builder, sizes: Mapping[str, int]) -> dict[str, int]:
    if getattr(builder, "__init__", None) is nn.Module.__init__:
        return {}  # its signature says **kwargs, but it takes none
    try:
        parameters = inspect.signature(builder).parameters.values()
    except (TypeError, ValueError):  # some callables written in C have no signature
        return dict(sizes)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(sizes)
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {key: value for key, value in sizes.items() if key in named}
