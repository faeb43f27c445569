"""Safetensors files that are to be refused: (what, ending, bytes)."""

import json
from collections.abc import Iterator

from qwd.checkpoints import pack_weights
from tests.checkpoints.making import (
    STATE,
    entry,
    safetensors,
)

Malformed = tuple[str, str, bytes]


def headers() -> Iterator[Malformed]:
    """Headers that are no JSON, or not of this form."""
    good = {"w": entry([4], 0, 16)}
    data = bytes(16)
    encoded = json.dumps(good).encode()
    headers: dict[str, object] = {
        "a list": b"[]",
        "a text": b'"w"',
        "null": b"null",
        "nothing": b"",
        "half": encoded[:-3],
        "twice": encoded[:-1] + b"," + encoded[1:],
        "a key twice in an entry": encoded.replace(b'{"dtype"', b'{"dtype":"F64","dtype"'),
        "metadata twice": b'{"__metadata__":{"a":"1","a":"2"},' + encoded[1:],
        "not UTF-8": b'{"\xff":1}',
        "half a pair": encoded.replace(b'"w"', b'"\\ud800"'),
        "metadata is a list": good | {"__metadata__": []},
        "metadata is a number": good | {"__metadata__": {"a": 1}},
        "metadata in metadata": good | {"__metadata__": {"a": {}}},
        "NaN": b'{"w": NaN}',
        "after the header": encoded + b"x",
    }
    for what, header in headers.items():
        yield f"header: {what}", ".safetensors", safetensors(header, data)
    for length in (0, 1, len(encoded) - 1, len(encoded) + 1, 2**31, 2**63, 2**64 - 1):
        content = safetensors(good, data, length=length)
        yield f"length {length}", ".safetensors", content
    yield "nothing but a length", ".safetensors", bytes(8)
    yield "7 bytes", ".safetensors", bytes(7)
    yield "a header without tensors", ".safetensors", safetensors({})


def entries() -> Iterator[Malformed]:
    """Entries that do not fit the bytes."""
    data = bytes(16)
    entries: dict[str, object] = {
        "null": None, "a list": [], "nothing": {}, "a text": "F32",
        "no dtype": {"shape": [4], "data_offsets": [0, 16]},
        "no shape": {"dtype": "F32", "data_offsets": [0, 16]},
        "no offsets": {"dtype": "F32", "shape": [4]},
        "more": entry([4], 0, 16) | {"more": 1},
        "one offset": {"dtype": "F32", "shape": [4], "data_offsets": [0]},
        "three offsets": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8, 16]},
        "offsets as texts": {"dtype": "F32", "shape": [4], "data_offsets": ["0", "16"]},
        "offsets as floats": {"dtype": "F32", "shape": [4], "data_offsets": [0.0, 16.0]},
        "backwards": entry([4], 16, 0),
        "beyond": entry([8], 0, 32),
        "negative": entry([4], -16, 0),
        "a gap in front": entry([2], 8, 16),
        "bytes left": entry([2], 0, 8),
        "another size": entry([3], 0, 16),
        "a negative size": entry([-4], 0, 16),
        "a size as text": entry(["4"], 0, 16),
        "a size as float": entry([4.0], 0, 16),
        "true": entry([True, 4], 0, 16),
        "a size of 2^64": entry([2**64], 0, 16),
        "a product of 2^64": entry([2**32, 2**32], 0, 0),
        "a wrapped product": entry([2**62, 4], 0, 0),
        "33 dimensions": entry([1] * 33, 0, 4),
        "dtype F99": entry([4], 0, 16, "F99"),
        "dtype f32": entry([4], 0, 16, "f32"),
        "dtype F4": entry([32], 0, 16, "F4"),
        "dtype F6": entry([4], 0, 3, "F6_E2M3"),
        "dtype null": {"dtype": None, "shape": [4], "data_offsets": [0, 16]},
        "dtype I32 of 8": entry([4], 0, 32, "I32"),
    }  # fmt: skip
    for what, value in entries.items():
        yield f"entry: {what}", ".safetensors", safetensors({"w": value}, data)
    for what, first, second in (
        ("overlap", entry([3], 0, 12), entry([3], 4, 16)),
        ("the same bytes", entry([4], 0, 16), entry([4], 0, 16)),
        ("a hole", entry([1], 0, 4), entry([1], 12, 16)),
    ):
        yield f"two: {what}", ".safetensors", safetensors({"a": first, "b": second}, data)


def contents() -> Iterator[Malformed]:
    """Files of qwd whose checksums tell that they were changed."""
    content = pack_weights(STATE, {"wd": "0.0001"})
    stop = 8 + int.from_bytes(content[:8], "little")
    changes = {
        "a weight": (content[stop : stop + 1], None),
        "a name": (b'"conv.bias":{', b'"conv.bigs":{'),
        "a dtype": (b'"F32"', b'"I32"'),
        "a shape": (b"[2,3]", b"[3,2]"),
        "metadata": (b"0.0001", b"0.0010"),
        "a checksum": (b"qwd-crc32:", b"qwd-crc33:"),
        "the entry": (b'"qwd-crc32":', b'"qwd-crc23":'),
    }
    for what, (old, new) in changes.items():
        if new is None:
            changed = content[:stop] + bytes([content[stop] ^ 1]) + content[stop + 1 :]
        else:
            assert old in content
            changed = content.replace(old, new, 1)
        yield f"sealed: {what}", ".safetensors", changed


def header_bombs() -> Iterator[Malformed]:
    """Headers that take much memory or time of a careless reader."""
    yield "a giant header", ".safetensors", (1 << 40).to_bytes(8, "little") + b"{" + bytes(99)
    deep = b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    yield "lists in a header", ".safetensors", safetensors(deep)
    yield (
        "mappings in a header",
        ".safetensors",
        safetensors(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    )
    yield "a header of 20 MB", ".safetensors", safetensors(b'{"a":"' + b"a" * (20 << 20) + b'"}')
    many = ",".join(f'"{i}":{{}}' for i in range(500_000)).encode()
    yield "a header of many", ".safetensors", safetensors(b"{" + many + b"}")
    yield "a long number", ".safetensors", safetensors(b'{"a":' + b"9" * 100_000 + b"}")
    yield "many numbers", ".safetensors", safetensors(b'{"a":[' + b"999," * 2_000_000 + b"1]}")
