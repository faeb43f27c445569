"""The names of quantization schemes, and what each name says.

A full name is::

    <kind>-<tensor|channel>[-<clip>]-w<bits>[-a<bits>][-qat][@<backend>[:<engine>]]

``-a8`` says that the activations are quantized too, ``@`` which backend computes. Names leave out
what follows from the rest: ``-w8`` where weights alone are quantized, and the backend where it is
the usual one: ``weights`` for weights alone, ``ao`` for what integer kernels run, ``simulated`` for
the rest. Some schemes have names of their own: ``ao-static`` is ``affine-tensor-w8-a8``, the scheme
scale = (b - a) / 255 on integer kernels, and ``onnx-static`` and ``simulated-static`` are the same
on those backends; ``ao-default`` is ``symmetric-channel-w8-a8``, torch's own configuration, and
``pt2e-default`` that of PT2E.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from qwd.errors import UsageError
from qwd.parsing import name_in
from qwd.registry import BACKENDS, suggestion
from qwd.setting import checked

BITS = range(2, 9)
"""Widths of weights and activations."""
Kind = Literal["minmax", "affine", "symmetric", "pow2"]
Clip = Literal["none", "percentile", "mse"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CLIPS: tuple[Clip, ...] = get_args(Clip)
GRANULARITIES = ("tensor", "channel")
INTEGER_KINDS = ("affine", "symmetric")
"""What integer kernels run: minmax has no zero point, and pow2 none that rounds to it."""


@dataclass(frozen=True)
class Scheme:
    """How weights, and perhaps activations, become integers."""

    kind: Kind
    """minmax, affine, symmetric or pow2: see `qwd.quantize.arithmetic`"""
    granularity: str
    """one range of weights per tensor, or per output channel; activations have one per tensor"""
    weight_bits: int = 8
    activation_bits: int | None = None
    """None: weights alone"""
    backend: str = "weights"
    """a name in `qwd.registry.BACKENDS`"""
    engine: str | None = None
    """which of the backend's engines; None: its first that this machine has"""
    clip: Clip = "none"
    """what of the range is cut off: nothing, or as `qwd.quantize.clipping` says"""
    qat: bool = False
    """whether the parameters of the quantization are those of a quantization-aware training"""

    @property
    def full_name(self) -> str:
        """Everything but the backend, e.g. ``affine-tensor-w8-a8``."""
        clip = f"-{self.clip}" if self.clip != "none" else ""
        activations = f"-a{self.activation_bits}" if self.activation_bits else ""
        qat = "-qat" if self.qat else ""
        return f"{self.kind}-{self.granularity}{clip}-w{self.weight_bits}{activations}{qat}"

    @property
    def name(self) -> str:
        """The name reports use, the shortest that is free of doubt."""
        if self in _OWN_NAMES:
            return _OWN_NAMES[self]
        name = self.full_name
        if self.activation_bits is None:
            name = name.removesuffix("-w8")
        if self.engine:
            return f"{name}@{self.backend}:{self.engine}"
        return name if self.backend == usual_backend(self) else f"{name}@{self.backend}"


def usual_backend(scheme: Scheme) -> str:
    """The backend of a scheme that names none."""
    if scheme.activation_bits is None:
        return "weights"
    integer = scheme.kind in INTEGER_KINDS and scheme.clip == "none" and scheme.activation_bits == 8
    return "ao" if integer else "simulated"


AO_STATIC = Scheme("affine", "tensor", activation_bits=8, backend="ao")
AO_DEFAULT = Scheme("symmetric", "channel", activation_bits=8, backend="ao")
_OWN_NAMES = {
    AO_STATIC: "ao-static",
    AO_DEFAULT: "ao-default",
    replace(AO_STATIC, backend="onnx"): "onnx-static",
    replace(AO_STATIC, backend="simulated"): "simulated-static",
    replace(AO_DEFAULT, backend="pt2e"): "pt2e-default",
}
_BY_OWN_NAME = {name: scheme for scheme, name in _OWN_NAMES.items()}

DEFAULT_SCHEMES = (
    Scheme("minmax", "tensor"),
    Scheme("affine", "tensor"),
    Scheme("affine", "channel"),
    AO_STATIC,
    AO_DEFAULT,
)

_NAME = re.compile(
    rf"(?P<kind>{'|'.join(KINDS)})-(?P<granularity>{'|'.join(GRANULARITIES)})"
    rf"(-(?P<clip>{'|'.join(CLIPS[1:])}))?(-w(?P<w>[2-8]))?(-a(?P<a>[2-8]))?"
    r"(@(?P<backend>[\w.-]+)(:(?P<engine>\w+))?)?"
)


def parse_scheme(text: str) -> Scheme:
    """The scheme of a short or full name; UsageError with the nearest valid one otherwise."""
    name = text.strip().lower()
    if name in _BY_OWN_NAME:
        return _BY_OWN_NAME[name]
    found = _NAME.fullmatch(name)
    if found is None:
        raise UsageError(f"--scheme {text!r}: unknown scheme, {_hint(name)}")
    scheme = Scheme(
        kind=found["kind"],  # type: ignore[arg-type]
        granularity=found["granularity"],
        weight_bits=int(found["w"] or 8),
        activation_bits=int(found["a"]) if found["a"] else None,
        clip=found["clip"] or "none",  # type: ignore[arg-type]
        engine=found["engine"],
    )
    backend = found["backend"] or usual_backend(scheme)
    checked("--scheme", lambda _: name_in(BACKENDS)(backend), text)
    return replace(scheme, backend=backend)


def on_backends(schemes: Iterable[Scheme], backends: Sequence[str]) -> tuple[Scheme, ...]:
    """Schemes with activations on each of these backends (``name`` or ``name:engine``) in turn.

    Schemes of weights alone, and those on another backend than their usual one, stay as they are.
    Raises UsageError for a backend that is not registered.
    """
    if not backends:
        return tuple(schemes)
    wanted: dict[Scheme, None] = {}
    for scheme in schemes:
        free = scheme.activation_bits is not None and scheme.backend == usual_backend(scheme)
        for backend in backends:
            name, _, engine = backend.partition(":")
            checked("--backend", lambda _, name=name: name_in(BACKENDS)(name), backend)
            placed = replace(scheme, backend=name, engine=engine or None)
            wanted[placed if free and scheme.engine is None else scheme] = None
    return tuple(wanted)


def expand(schemes: Iterable[Scheme], bits: Sequence[int]) -> tuple[Scheme, ...]:
    """Schemes at each width of their weights; in order, each once.

    A scheme whose name already states a width other than 8, and torch's own configurations, which
    have one width, stay as they are.

    Raises UsageError for a width outside 2 to 8.
    """
    for width in bits:
        if width not in BITS:
            raise UsageError(f"--bits {width}: weights take {BITS[0]} to {BITS[-1]} bits")
    wanted: dict[Scheme, None] = {}
    for scheme in schemes:
        own = scheme.kind == "symmetric" and scheme.name in _BY_OWN_NAME
        if scheme.weight_bits == 8 and not own:
            wanted |= {replace(scheme, weight_bits=width): None for width in bits}
        else:
            wanted[scheme] = None
    return tuple(wanted)


def _hint(name: str) -> str:
    if name.endswith("-qat"):
        return "the report of a run of `qwd train --qat` has its scheme without being asked"
    known = [f"{k}-{g}{s}" for k in KINDS for g in GRANULARITIES for s in ("", "-w8", "-w8-a8")]
    hint = suggestion(name, [*_BY_OWN_NAME, *known])
    if hint.startswith("known"):
        defaults = ", ".join(s.name for s in DEFAULT_SCHEMES)
        kinds = "|".join(KINDS)
        return f"{defaults}, or <{kinds}>-<tensor|channel>[-w2 to -w8][-a2 to -a8][@backend]"
    return hint
