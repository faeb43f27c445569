"""The schemes that a report is asked for, checked before any work."""

from collections.abc import Iterator, Sequence

from qwd.errors import UsageError
from qwd.quantize.backend import Backend, NotQuantizableError
from qwd.quantize.schemes import DEFAULT_SCHEMES, Scheme, expand, on_backends, parse_scheme
from qwd.registry import BACKENDS


def asked_schemes(
    names: Sequence[str], backends: Sequence[str], bits: Sequence[int]
) -> tuple[Scheme, ...]:
    """The schemes called ``names`` (none: the default ones) on ``backends`` at widths ``bits``.

    Raises UsageError for unknown names, for backends whose extra is missing, and for a scheme that
    is asked for, or a backend, of which nothing can run on any network.
    """
    named = [parse_scheme(name) for name in names] or DEFAULT_SCHEMES
    schemes = expand(on_backends(named, backends), bits)
    reasons = {scheme: _refusal(scheme) for scheme in schemes}
    for name, group in _asked(names, backends, bits):
        if group and all(reasons[scheme] for scheme in group):
            raise UsageError(f"{name}: {reasons[group[0]]}")
    return schemes


def _asked(
    names: Sequence[str], backends: Sequence[str], bits: Sequence[int]
) -> Iterator[tuple[str, tuple[Scheme, ...]]]:
    """What was asked for, and the schemes that came of it."""
    for name in names:
        for chosen in [[backend] for backend in backends] or [[]]:
            called = f"{name} on {chosen[0]}" if chosen else name
            yield f"--scheme {called}", expand(on_backends([parse_scheme(name)], chosen), bits)
    if not names:
        static = [s for s in DEFAULT_SCHEMES if s.activation_bits is not None]
        for backend in backends:
            yield f"--backend {backend}", expand(on_backends(static, [backend]), bits)


def _refusal(scheme: Scheme) -> str | None:
    """Why no network can be quantized by ``scheme``; None where some can."""
    backend: Backend = BACKENDS.get(scheme.backend)()
    try:
        backend.check(scheme)
    except NotQuantizableError as error:
        return str(error)
    return None
