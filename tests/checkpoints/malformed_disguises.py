"""Files that try to look like checkpoints to one reader alone, or call what is allowed wrongly.

(what, ending, bytes) as the other corpora.
"""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

from tests.checkpoints.making import (
    HOOKS,
    archive,
    checkpoint,
    entry,
    mapping,
    name,
    number,
    numbers,
    program,
    safetensors,
    storage,
    tensor,
    text,
)

Malformed = tuple[str, str, bytes]
ORDERED, COUNTER = name("collections", "OrderedDict"), name("collections", "Counter")
SIZE, DEVICE = name("torch", "Size"), name("torch", "device")
PARAMETER = name("torch.nn.parameter", "Parameter")
REBUILD = name("torch._utils", "_rebuild_tensor_v2")
STORED = {"0": struct.pack("<4f", 1, 2, 3, 4)}
WEIGHTS = program(mapping(w=tensor()))
RECORDS = [("a/data.pkl", WEIGHTS), ("a/data/0", STORED["0"]), ("a/version", b"3\n")]


def polyglots() -> Iterator[Malformed]:
    """Other formats in front of an archive, which readers that look from its end do not see."""
    whole = checkpoint(WEIGHTS, STORED)
    fronts = {
        "HTML": b"<html>",
        "script": b"#!/bin/sh\n",
        "PDF": b"%PDF-1.4\n",
        "GIF": b"GIF89a",
        "ELF": b"\x7fELF",
        "DOS": b"MZ",
        "spanned archive": b"PK\x07\x08",
        "old pickle": program(number(0x1950A86A20F9469CFC6C)),
        "safetensors": safetensors({"w": entry([0], 0, 0)}),
    }
    for what, front in fronts.items():
        yield f"{what} before an archive", ".pt", front + whole
    moved = io.BytesIO(b"12345678")
    moved.seek(8)
    with zipfile.ZipFile(moved, "a", zipfile.ZIP_STORED) as file:
        for record, content in RECORDS:
            file.writestr(record, content)
    yield "bytes before an archive that knows of them", ".pt", moved.getvalue()
    yield "an archive behind safetensors", ".safetensors", safetensors({}, whole)


def archives() -> Iterator[Malformed]:
    """Archives that say two things."""
    whole = checkpoint(WEIGHTS, STORED)
    directory, last, end = whole.find(b"PK\1\2"), whole.rfind(b"PK\1\2"), whole.rfind(b"PK\5\6")
    size = end - directory
    locator = b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
    for what, length, count, start in (
        ("zip64 end that counts more", 44, 4, directory),
        ("zip64 end elsewhere", 44, 3, 2**63),
        ("zip64 end without end", 2**64 - 1, 3, directory),
    ):
        fields = (length, 45, 45, 0, 0, count, count, size, start)
        wide = b"PK\6\6" + struct.pack("<QHHIIQQQQ", *fields)
        yield what, ".pt", whole[:end] + wide + locator + whole[end:]
    yield "locator of nothing", ".pt", whole[:end] + locator + whole[end:]
    first = whole[: last + 42] + bytes(4) + whole[last + 46 :]
    yield "two entries of one record", ".pt", first
    inner = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 3, 3, size, directory, 22)
    yield "an end in the comment of another", ".pt", whole[:end] + inner + whole[end:]
    signature = b"PK\6\x08" + bytes(4)
    yield "a signature record", ".pt", whole[:directory] + signature + whole[directory:]
    for flags in (0x20, 0x41, 0x2000):
        yield f"archive flags {flags:x}", ".pt", checkpoint(WEIGHTS, STORED, flags=flags)
    for what, marked, wide in (("", False, False), (" of 64 bits", False, True)):
        yield f"descriptors{what} without their mark", ".pt", _described(marked, wide)

    def another_name(info: zipfile.ZipInfo) -> None:
        info.extra = struct.pack("<HHBI", 0x7075, 9, 1, 0) + b"evil"

    def encrypted(info: zipfile.ZipInfo) -> None:
        info.extra = struct.pack("<HH", 0x9901, 7) + b"\2\0AE\3\0\0"

    def commented(info: zipfile.ZipInfo) -> None:
        info.comment = b"x"

    def folder(info: zipfile.ZipInfo) -> None:
        info.external_attr |= 0x10

    for change in (another_name, encrypted, commented, folder):
        yield f"records {change.__name__}", ".pt", _zipped(change)
    for record in ("A/data/0", "a/data/\uff10", "a/data/0\0x", "a/data/-1", "a/data/+1"):
        yield f"another record {record!r}", ".pt", archive([*RECORDS, (record, STORED["0"])])
    for version in (b"99999\n", b"abc", b"-1", b""):
        records = [*RECORDS[:2], ("a/version", version)]
        yield f"version {version!r}", ".pt", archive(records)
    for order in (b"", b"LITTLE", b"little\n"):
        yield f"byte order {order!r}", ".pt", archive([*RECORDS, ("a/byteorder", order)])


def _described(marked: bool, wide: bool) -> bytes:
    """An archive whose sizes follow the bytes."""
    body, directory = b"", b""
    for record, content in RECORDS:
        called, header, crc, n = record.encode(), len(body), zlib.crc32(content), len(content)
        body += b"PK\3\4" + struct.pack("<HHHHHIIIHH", 0, 8, 0, 0, 0, 0, 0, 0, len(called), 0)
        body += called + content + (b"PK\7\x08" if marked else b"")
        body += struct.pack("<IQQ" if wide else "<III", crc, n, n)
        sizes = (0, 0, 8, 0, 0, 0, crc, n, n, len(called), 0, 0, 0, 0, 0, header)
        directory += b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", *sizes) + called
    counts = (0, 0, len(RECORDS), len(RECORDS), len(directory), len(body), 0)
    return body + directory + b"PK\5\6" + struct.pack("<HHHHIIH", *counts)


def _zipped(change: Callable[[zipfile.ZipInfo], None]) -> bytes:
    """An archive of the standard library's, each record changed."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as file:
        for record, content in RECORDS:
            info = zipfile.ZipInfo(record)
            change(info)
            file.writestr(info, content)
    return made.getvalue()


def calls() -> Iterator[Malformed]:
    """Allowed functions with arguments that torch.save never gives them, and forbidden ones."""

    def call(function: bytes, *arguments: bytes) -> bytes:
        return function + b"(" + b"".join(arguments) + b"tR"

    one = numbers((1,))
    values = {
        "OrderedDict of triples": call(ORDERED, b"](](" + text("a") * 3 + b"ee"),
        "OrderedDict of a text": call(ORDERED, text("ab")),
        "OrderedDict of a mapping": call(ORDERED, b"}"),
        "OrderedDict of a number": call(ORDERED, number(10**9)),
        "OrderedDict of lists as keys": call(ORDERED, b"](](]K\1ee"),
        "Counter of a list": call(COUNTER, b"](K\1e"),
        "Counter of a number": call(COUNTER, number(5)),
        "Size of a truth": call(SIZE, b"(\x88t"),
        "Size of a text": call(SIZE, text("12")),
        "device of a number": call(DEVICE, number(3)),
        "device of a truth": call(DEVICE, text("cuda"), b"\x88"),
        "device below 0": call(DEVICE, text("cuda"), number(-1)),
        "device of two lines": call(DEVICE, text("cpu\ncpu")),
        "device of no kind": call(DEVICE, text("zz")),
        "parameter of a number": call(PARAMETER, number(3)),
        "parameter of a mapping": call(PARAMETER, b"}"),
        "parameter, gradient a text": call(PARAMETER, tensor(), text("x")),
        "name with a space": b"ctorch \nSize\n)R",
        "name with dots": b"ctorch\n_utils._rebuild_tensor_v2\n)R",
        "name in another script": "cpo\u0455ix\nsystem\n".encode() + b"(" + text("x") + b"tR",
        "storage by its class": call(name("torch", "FloatStorage"), number(2**40)),
        "untyped storage by its class": call(name("torch.storage", "UntypedStorage"), number(9)),
        "dtype that is called": call(name("torch", "float32")),
        "torch.load": call(name("torch", "load"), text("x")),
        "torch.hub": call(name("torch.hub", "load"), text("x"), text("y")),
        "memmap": call(name("numpy", "memmap"), text("/etc/passwd")),
        "text of 2^63 bytes": b"\x8d" + struct.pack("<Q", 2**63) + b"x",
        "frame of 2^63 bytes": b"\x95" + struct.pack("<Q", 2**63),
        "metadata beside keys": ORDERED + b")R" + mapping(_metadata=b"}", keys=b"N") + b"b",
    }
    for what, value in values.items():
        yield what, ".pt", checkpoint(program(mapping(w=tensor(), x=value)), STORED)
    tensors = {
        "an offset of truth": b"\x88" + numbers((3,)) + one,
        "an offset that is a float": b"G" + struct.pack(">d", 0) + numbers((3,)) + one,
        "a shape of truth": number(0) + b"(\x88t" + one,
        "a shape that is a list": number(0) + b"](" + number(4) + b"e" + one,
    }
    for what, view in tensors.items():
        made = REBUILD + b"(" + storage() + view + b"\x89" + HOOKS + b"tR"
        yield what, ".pt", checkpoint(program(mapping(w=made)), STORED)
    for shape, strides in (((2, 3), (1, 1)), ((2, 2), (2**63 - 1, 2**63 - 1))):
        what = f"a view {shape} by {strides}"
        body = program(mapping(w=tensor(shape=shape, strides=strides)))
        yield what, ".pt", checkpoint(body, STORED)
    inside = b"}q\0" + text("state_dict") + b"h\0s"
    yield "a state dict in itself", ".pt", checkpoint(program(inside), {})
    for depth, key in ((40_000, "k"), (5_000, "state_dict")):
        body = b"}" + (text(key) + b"}") * depth + b"s" * depth
        yield f"{depth} mappings under {key}", ".pt", checkpoint(program(body), {})
    for protocol in (0, 1, 4, 5):
        content = pickle.dumps({"w": 1.5, "x": [1, 2]}, protocol)
        yield f"pickle by protocol {protocol}", ".pt", checkpoint(content)


def headers() -> Iterator[Malformed]:
    """Headers of safetensors that two readers of JSON read differently."""
    good = b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    two = b'{"w":%s,"\\u0077":%s}' % ((good[5:-1],) * 2)
    texts = {
        "a key twice by an escape": two,
        "a mark of byte order": b"\xef\xbb\xbf" + good,
        "a zero behind": good + b"\0",
        "a zero in front": b"\0" + good,
        "a blank in front": b" " + good,
        "an offset as 1.6e1": good.replace(b"16]", b"1.6e1]"),
        "offsets of truth": good.replace(b"[0,16]", b"[false,true]"),
        "a dtype in other letters": good.replace(b"F32", "\uff2632".encode()),
        "an offset of 4000 digits": good.replace(b"16]", b"1" + b"0" * 4000 + b"]"),
        "metadata null": b'{"__metadata__":null,' + good[1:],
    }
    for checksums in ("{}", "[" * 100_000, "[1]", '{"w":NaN,"":NaN}', '{"w":' + "9" * 5000 + "}"):
        quoted = checksums.replace('"', '\\"').encode()
        texts[f"checksums {checksums[:12]}"] = (
            b'{"__metadata__":{"qwd-crc32":"' + quoted + b'"},' + good[1:]
        )
    for what, header in texts.items():
        yield f"header with {what}", ".safetensors", safetensors(header, STORED["0"])
    for shift in (1, 2**62):
        length = len(good) + shift
        content = safetensors(good, STORED["0"], length=length)
        yield f"header longer by {shift}", ".safetensors", content
    inside = {"w": entry([4], 0, 16), "z": entry([0], 8, 8)}
    yield "nothing within a tensor", ".safetensors", safetensors(inside, STORED["0"])
    giant = {"w": entry([4], 0, 16), "z": entry([0, 2**62, 2**62], 16, 16)}
    yield "nothing times 2^124", ".safetensors", safetensors(giant, STORED["0"])
