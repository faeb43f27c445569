"""Archives and files of other formats that are to be refused: (what, ending, bytes)."""

import gzip
import io
from collections.abc import Iterator

import numpy as np

from qwd.checkpoints import pack_weights
from tests.checkpoints.attacks import zipped
from tests.checkpoints.making import (
    STATE,
    archive,
    checkpoint,
    mapping,
    program,
    save_bytes,
    tensor,
)

Malformed = tuple[str, str, bytes]
WEIGHTS = program(mapping(w=tensor()))
BYTES = {"0": bytes(16)}
INTEGERS = (1, 7, 255, 65535, 2**31, 2**32 - 1)


def formats() -> Iterator[Malformed]:
    """Files of other formats, under both endings."""
    array = io.BytesIO()
    np.save(array, np.ones(3))
    contents = {
        "empty": b"",
        "one byte": b"\0",
        "zeros": bytes(4096),
        "ones": b"\xff" * 4096,
        "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "HTML page": b"<!DOCTYPE html><html>404</html>",
        "HTML page after blanks": b"\n\n  <HTML><body>not found",
        "XML error": b"<?xml version='1.0'?><Error>AccessDenied</Error>",
        "JSON error": b'{"error": "Repository not found"}',
        "text": b"Entry not found",
        "script": b"#!/bin/sh\nexit 0\n",
        "gzip": gzip.compress(save_bytes(STATE)),
        "bzip2": b"BZh91AY&SY",
        "xz": b"\xfd7zXZ\x00",
        "zstd": b"\x28\xb5\x2f\xfd\x04",
        "7z": b"7z\xbc\xaf\x27\x1c",
        "rar": b"Rar!\x1a\x07",
        "tar": bytes(257) + b"ustar" + bytes(250),
        "npy": array.getvalue(),
        "npz": zipped({"x.npy": array.getvalue()}),
        "GGUF": b"GGUF\x03\x00\x00\x00" + bytes(64),
        "HDF5": b"\x89HDF\r\n\x1a\n",
        "ONNX": b"\x08\x07\x12\x07pytorch\x1a\x052.13.0",
        "TFLite": b"\x1c\0\0\0TFL3",
        "PNG": b"\x89PNG\r\n\x1a\n",
        "JPEG": b"\xff\xd8\xff\xe0",
        "PDF": b"%PDF-1.7",
        "ELF": b"\x7fELF\x02",
        "Word": zipped({"word/document.xml": b"<x/>"}),
        "empty zip": zipped({}),
        "zip of a checkpoint": zipped({"model.pt": save_bytes(STATE)}),
        "bare pickle": b"\x80\x04]\x94.",
        "a lone magic": b"PK\x03\x04",
        "two checkpoints": save_bytes(STATE) * 2,
        "random": np.random.default_rng(0).bytes(5000),
    }
    for what, content in contents.items():
        for ending in (".pt", ".safetensors"):
            yield f"{what} as {ending}", ending, content
    yield "a checkpoint as safetensors", ".safetensors", save_bytes(STATE)
    yield "a legacy one as safetensors", ".safetensors", save_bytes(STATE, legacy=True)
    yield "safetensors as .pt", ".pt", pack_weights(STATE)
    yield "safetensors as .bin", ".bin", pack_weights(STATE)


def cut_off() -> Iterator[Malformed]:
    """Good files with bytes missing or added."""
    files = {
        ".pt": save_bytes(STATE),
        ".pth": save_bytes(STATE, legacy=True),
        ".safetensors": pack_weights(STATE),
    }
    for ending, content in files.items():
        for eighths in range(1, 8):
            yield f"{eighths}/8 of {ending}", ending, content[: len(content) * eighths // 8]
        yield f"{ending} without its last byte", ending, content[:-1]
        yield f"{ending} with one byte more", ending, content + b"\0"
        yield f"{ending} without its first byte", ending, content[1:]


def zip_fields() -> Iterator[Malformed]:
    """Archives with one field that is not true."""

    def made(**fields: object) -> bytes:
        return checkpoint(WEIGHTS, BYTES, **fields)  # type: ignore[arg-type]

    for where in ("local", "central"):
        for field in ("method", "crc", "packed", "size"):
            for value in (1, 99):
                yield f"{where} {field} {value}", ".pt", made(**{where: {field: value}})
        for flags in (1, 8, 0x40, 0x2000):
            yield f"{where} flags {flags:x}", ".pt", made(**{where: {"flags": flags}})
        for other in (b"a/data.pk", b"A/DATA.PKL", b"../data.pkl", b"/etc/passwd", b"", b"a/\xff"):
            yield f"{where} name {other!r}", ".pt", made(**{where: {"name": other}})
        yield f"{where} extra", ".pt", made(**{where: {"extra": b"UT\x05\0abcde"}})
        yield f"{where} extra cut", ".pt", made(**{where: {"extra": b"\x01\0\xff"}})
    for header in INTEGERS:
        yield f"offset {header}", ".pt", made(central={"header": header})
    yield "comment of a record", ".pt", made(central={"comment": b"hello"})
    yield "size of 64 bits missing", ".pt", made(central={"size": 0xFFFFFFFF})
    for field in ("disk", "first", "here", "count", "size", "start", "comment"):
        for value in (1, 65535):
            yield f"end {field} {value}", ".pt", made(end={field: value})
    yield "bytes between records", ".pt", made(gap=b"hidden!!")
    yield "bytes at the end", ".pt", made(tail=b"x")
    yield "comment", ".pt", made(comment=b"x")
    yield "end record twice", ".pt", made(tail=made()[-22:])
    yield "compressed", ".pt", made(method=8)
    zip64 = b"PK\x06\x06" + bytes(52) + b"PK\x06\x07" + bytes(16)
    whole = made()
    yield "zip64 of zeros", ".pt", whole[:-22] + zip64 + whole[-22:]


def records() -> Iterator[Malformed]:
    """Archives with other records than torch.save writes."""
    pickle = ("a/data.pkl", WEIGHTS)
    data = ("a/data/0", bytes(16))
    others = ("a/data/../0", "a/data/00", "a/data/x", "a/data/0/1", "a/extra", "data/1", "b/data/1")
    for other in (*others, "a\\data\\1", "a/data/1\0", "a/", "/a/data/1", "a/data/1 "):
        yield f"record {other!r}", ".pt", archive([pickle, data, (other, b"")])
    yield "no pickle", ".pt", archive([data])
    yield "no data", ".pt", archive([pickle])
    yield "data twice", ".pt", archive([pickle, data, data])
    yield "pickle twice", ".pt", archive([pickle, pickle, data])
    yield "data of no tensor", ".pt", archive([pickle, data, ("a/data/1", b"abcd")])
    yield "no root", ".pt", archive([("data.pkl", WEIGHTS), ("data/0", bytes(16))])
    yield "root ..", ".pt", archive([("../data.pkl", WEIGHTS), ("../data/0", bytes(16))])
    yield "big-endian", ".pt", archive([pickle, data, ("a/byteorder", b"big")])
    yield "byte order", ".pt", archive([pickle, data, ("a/byteorder", b"middle")])
    yield "a long version", ".pt", archive([pickle, data, ("a/version", b"3" * 5000)])
    yield "TorchScript", ".pt", archive([pickle, data, ("a/constants.pkl", b"")])
    yield "program", ".pt", archive([pickle, data, ("a/code/__torch__.py", b"")])
    yield "exported program", ".pt", archive([("a/models/model.json", b"{}")])
    yield "pickle compressed", ".pt", archive([pickle, data], method=8)
