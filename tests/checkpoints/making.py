"""Making files of weights by hand: archives with any field wrong, and pickles by instruction."""

import io
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qwd.checkpoints.formats import LEGACY

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}


def saved(path: Path, content: Any, **options: Any) -> Path:
    """``content`` in a file of torch.save."""
    torch.save(content, path, **options)
    return path


def save_bytes(content: Any, *, legacy: bool = False) -> bytes:
    """The bytes of a file of torch.save; the records of an archive lie in ``archive/``."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def archive(
    records: list[tuple[str, bytes]],
    *,
    method: int = 0,
    flags: int = 0,
    local: Mapping[str, Any] | None = None,
    central: Mapping[str, Any] | None = None,
    end: Mapping[str, Any] | None = None,
    gap: bytes = b"",
    tail: bytes = b"",
    comment: bytes = b"",
) -> bytes:
    """A zip archive of ``records``; ``local``, ``central`` and ``end`` replace fields of the first
    record's header, of its directory entry, and of the end record; ``gap`` goes before the second.
    """
    body, directory = b"", b""
    for i, (name, content) in enumerate(records):
        stored = content
        if method == 8:
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            stored = packer.compress(content) + packer.flush()
        fields = {
            "flags": flags,
            "method": method,
            "crc": zlib.crc32(content),
            "packed": len(stored),
            "size": len(content),
            "name": name.encode("utf-8", "surrogateescape"),
            "extra": b"",
            "comment": b"",
            "disk": 0,
            "header": len(body),
        }
        here = fields | dict((local or {}) if i == 0 else {})
        there = fields | dict((central or {}) if i == 0 else {})
        # Offsets of later records stay true while the extra field pads to 8 bytes.
        extra = here["extra"] or b""
        if not extra:
            pad = -(len(body) + 30 + len(here["name"]) + 4) % 64
            extra = struct.pack("<HH", 0x4246, pad) + b"Z" * pad
        body += b"PK\x03\x04" + struct.pack(
            "<HHHHHIIIHH",
            *(0, here["flags"], here["method"], 0, 0, here["crc"], here["packed"], here["size"]),
            *(len(here["name"]), len(extra)),
        )
        body += here["name"] + extra + stored
        directory += b"PK\x01\x02" + struct.pack(
            "<HHHHHHIIIHHHHHII",
            *(0, 0, there["flags"], there["method"], 0, 0, there["crc"], there["packed"]),
            *(there["size"], len(there["name"]), len(there["extra"]), len(there["comment"])),
            *(there["disk"], 0, 0, there["header"]),
        )
        directory += there["name"] + there["extra"] + there["comment"]
        if i == 0:
            body += gap
    ends = {"disk": 0, "first": 0, "here": len(records), "count": len(records)}
    ends |= {"size": len(directory), "start": len(body), "comment": len(comment)} | dict(end or {})
    order = ("disk", "first", "here", "count", "size", "start", "comment")
    last = b"PK\x05\x06" + struct.pack("<HHHHIIH", *(ends[name] for name in order)) + comment
    return body + directory + last + tail


def checkpoint(pickle: bytes, storages: Mapping[str, bytes] | None = None, **fields: Any) -> bytes:
    """A zip archive as torch.save writes it, with this pickle and these bytes of storages."""
    data = [(f"a/data/{key}", content) for key, content in (storages or {}).items()]
    return archive([("a/data.pkl", pickle), *data, ("a/version", b"3\n")], **fields)


def text(value: str) -> bytes:
    """The instruction that pushes a text."""
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    """The instruction that pushes a whole number of up to 2000 bits."""
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def numbers(values: tuple[int, ...]) -> bytes:
    """The instructions that push a tuple of numbers."""
    return b"(" + b"".join(map(number, values)) + b"t"


def name(module: str, attribute: str) -> bytes:
    """The instruction that pushes a function or class."""
    return f"c{module}\n{attribute}\n".encode()


def storage(key: str = "0", numel: int = 4, kind: bytes = name("torch", "FloatStorage")) -> bytes:
    """The instructions that push a storage."""
    return b"(" + text("storage") + kind + text(key) + text("cpu") + number(numel) + b"tQ"


HOOKS = name("collections", "OrderedDict") + b")R"


def tensor(
    stored: bytes | None = None,
    *,
    offset: int = 0,
    shape: tuple[int, ...] = (4,),
    strides: tuple[int, ...] = (1,),
    grad: bytes = b"\x89",
    hooks: bytes = HOOKS,
    more: bytes = b"",
    function: str = "_rebuild_tensor_v2",
) -> bytes:
    """The instructions that push a tensor."""
    arguments = (stored or storage()) + number(offset) + numbers(shape) + numbers(strides)
    return name("torch._utils", function) + b"(" + arguments + grad + hooks + more + b"tR"


def mapping(**values: bytes) -> bytes:
    """The instructions that push a dict by text."""
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def program(body: bytes) -> bytes:
    """A whole pickle of protocol 2."""
    return b"\x80\x02" + body + b"."


def legacy(
    body: bytes,
    storages: Mapping[str, tuple[int, bytes]] | None = None,
    *,
    version: bytes = number(1001),
    facts: bytes | None = None,
    keys: bytes | None = None,
) -> bytes:
    """A file of torch.save before 1.6; ``storages``: elements and bytes by key."""
    stored = storages or {}
    facts = facts if facts is not None else mapping(little_endian=b"\x88")
    listed = b"](" + b"".join(text(key) for key in stored) + b"e"
    parts = (version, facts, body, keys if keys is not None else listed)
    data = b"".join(struct.pack("<q", n) + content for n, content in stored.values())
    return LEGACY + b"".join(map(program, parts)) + data


def old_storage(key: str = "0", numel: int = 4, view: bytes = b"N") -> bytes:
    """The instructions that push a storage, in the format before 1.6."""
    start = b"(" + text("storage") + name("torch", "FloatStorage") + text(key) + text("cpu")
    return start + number(numel) + view + b"tQ"


def safetensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file with this header, text or an object."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    told = len(content) if length is None else length
    return told.to_bytes(8, "little") + content + data


def entry(shape: list[Any], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    """The entry of a tensor in a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Whether names, dtypes, shapes and bits are the same, in any order."""
    return found.keys() == expected.keys() and all(
        t.dtype == expected[n].dtype
        and t.shape == expected[n].shape
        and torch.equal(_bits(t), _bits(expected[n]))
        for n, t in found.items()
    )


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
