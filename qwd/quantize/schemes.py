"""The names of quantization schemes, and what each name says.

A full name is ``<kind>-<granularity>-w<bits>``, with ``-a8`` behind it where the activations are
quantized too. Short names leave out ``-w8`` where weights alone are quantized, and two schemes
that run on torch.ao have names of their own: ``ao-static`` is ``affine-tensor-w8-a8``, the scheme
scale = (b - a) / 255 on integer kernels; ``ao-default`` is ``symmetric-channel-w8-a8``, torch's
own configuration.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from qwd.errors import UsageError
from qwd.registry import suggestion

BITS = range(2, 9)
"""Widths of weights; integer kernels, and so schemes with activations, have 8 alone."""
Kind = Literal["minmax", "affine", "symmetric"]
KINDS: tuple[Kind, ...] = ("minmax", "affine", "symmetric")
GRANULARITIES = ("tensor", "channel")


@dataclass(frozen=True)
class Scheme:
    """How weights, and perhaps activations, become integers."""

    kind: Kind
    """minmax, affine or symmetric: see `qwd.quantize.arithmetic`"""
    granularity: str
    """one range per tensor, or per output channel"""
    weight_bits: int = 8
    activation_bits: int | None = None
    """None: weights alone"""
    backend: str = "weights"
    """a name in `qwd.registry.BACKENDS`"""

    @property
    def full_name(self) -> str:
        """Everything but the backend, e.g. ``affine-tensor-w8-a8``."""
        activations = f"-a{self.activation_bits}" if self.activation_bits else ""
        return f"{self.kind}-{self.granularity}-w{self.weight_bits}{activations}"

    @property
    def name(self) -> str:
        """The name reports use, the shortest that is free of doubt."""
        if self in _OWN_NAMES:
            return _OWN_NAMES[self]
        if self.activation_bits is None and self.weight_bits == 8:
            return f"{self.kind}-{self.granularity}"
        return self.full_name


AO_STATIC = Scheme("affine", "tensor", activation_bits=8, backend="ao")
AO_DEFAULT = Scheme("symmetric", "channel", activation_bits=8, backend="ao")
_OWN_NAMES = {AO_STATIC: "ao-static", AO_DEFAULT: "ao-default"}

DEFAULT_SCHEMES = (
    Scheme("minmax", "tensor"),
    Scheme("affine", "tensor"),
    Scheme("affine", "channel"),
    AO_STATIC,
    AO_DEFAULT,
)

_EVERY_SCHEME = [
    *(Scheme(*parts) for parts in product(KINDS, GRANULARITIES, BITS)),
    # Integer kernels multiply by a zero point, which minmax does not have.
    *(Scheme(*parts, 8, 8, "ao") for parts in product(KINDS[1:], GRANULARITIES)),
]
_BY_NAME = {name: s for s in _EVERY_SCHEME for name in (s.name, s.full_name)}


def parse_scheme(text: str) -> Scheme:
    """The scheme of a short or full name; UsageError with the nearest valid one otherwise."""
    name = text.strip().lower()
    if name in _BY_NAME:
        return _BY_NAME[name]
    hint = suggestion(name, _BY_NAME)
    if hint.startswith("known"):
        defaults = ", ".join(s.name for s in DEFAULT_SCHEMES)
        hint = f"{defaults}, or <minmax|affine|symmetric>-<tensor|channel>[-w2 to -w8]"
    raise UsageError(f"unknown scheme {text!r}: {hint}")


def expand(schemes: Iterable[Scheme], bits: Sequence[int]) -> tuple[Scheme, ...]:
    """Schemes of weights alone at each width; in order, each once.

    A scheme with activations, or whose name already states a width other than 8, stays as it is.

    Raises UsageError for a width outside 2 to 8.
    """
    for width in bits:
        if width not in BITS:
            raise UsageError(f"--bits {width}: weights take {BITS[0]} to {BITS[-1]} bits")
    wanted: dict[Scheme, None] = {}
    for scheme in schemes:
        if scheme.activation_bits is None and scheme.weight_bits == 8:
            wanted |= {replace(scheme, weight_bits=width): None for width in bits}
        else:
            wanted[scheme] = None
    return tuple(wanted)
