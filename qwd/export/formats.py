"""The formats of exported files, and which schemes each one can hold; free of torch."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from qwd.errors import UsageError
from qwd.quantize.schemes import INTEGER_KINDS, KINDS, Scheme, parse_scheme
from qwd.registry import suggestion

MARK, VERSION = "qwd_export", "1"
"""a key in the metadata of every exported file, and its value: the version of what is in there"""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file."""

    name: str
    """also the end of the file's name"""
    backend: str
    """what quantizes the network that is written"""
    default: str
    """the scheme where none is asked for"""
    holds: Callable[[Scheme], bool]
    schemes: str
    """what it holds, in words"""
    program: str
    """the class in `qwd.export` that writes and runs it"""


def _integer(scheme: Scheme) -> bool:
    """Whether integer kernels with 8-bit activations run a scheme."""
    return scheme.activation_bits == 8 and scheme.kind in INTEGER_KINDS and scheme.clip == "none"


FORMATS = {
    f.name: f
    for f in (
        Format(
            name="onnx",
            backend="onnx",
            default="affine-tensor-w8-a8@onnx",
            holds=_integer,
            schemes="<affine|symmetric>-<tensor|channel>-w2-a8 to -w8-a8",
            program="qwd.export.onnx_file:OnnxFile",
        ),
        Format(
            name="pt2",
            backend="pt2e",
            default="symmetric-channel-w8-a8@pt2e",
            holds=lambda scheme: scheme.full_name == "symmetric-channel-w8-a8",
            schemes="symmetric-channel-w8-a8",
            program="qwd.export.pt2_file:Pt2File",
        ),
        Format(
            name="safetensors",
            backend="weights",
            default="affine-tensor",
            holds=lambda scheme: scheme.activation_bits is None,
            schemes="<minmax|affine|symmetric|pow2>-<tensor|channel>[-<clip>]-w2 to -w8",
            program="qwd.export.safetensors_file:SafetensorsFile",
        ),
    )
}


def format_called(name: str) -> Format:
    """The format of a name; UsageError with the nearest one."""
    if name not in FORMATS:
        raise UsageError(f"--format {name!r}: {suggestion(name, FORMATS)}")
    return FORMATS[name]


def scheme_for(format: Format, name: str | None) -> Scheme:
    """The scheme of a name in this format, on the format's backend; its default for None.

    A name that leaves the backend open is taken to mean the format's. Raises UsageError for an
    unknown name, and for a scheme that the format cannot hold.
    """
    asked = (format.default if name is None else name).strip().lower()
    scheme = parse_scheme(asked)
    backend_is_open = "@" not in asked and asked.split("-")[0] in KINDS
    if backend_is_open and scheme.activation_bits is not None:
        scheme = replace(scheme, backend=format.backend)
    if scheme.backend != format.backend or not format.holds(scheme):
        raise UsageError(
            f"--scheme {name}: --format {format.name} takes {format.schemes}, "
            f"on the backend {format.backend!r}"
        )
    return scheme
