"""Pickles that are to be refused: (what, ending, bytes)."""

import gzip
import struct
from collections.abc import Iterator

import numpy as np
import torch

from tests.checkpoints.making import (
    HOOKS,
    STATE,
    checkpoint,
    legacy,
    mapping,
    name,
    number,
    numbers,
    old_storage,
    program,
    save_bytes,
    storage,
    tensor,
    text,
)

Malformed = tuple[str, str, bytes]
ORDERED = name("collections", "OrderedDict")
WEIGHTS = program(mapping(w=tensor()))
BYTES = {"0": bytes(16)}


def instructions() -> Iterator[Malformed]:
    """Every instruction of pickle that no state dict needs, and programs that cannot run."""
    bodies = {
        "INT": b"I1\n", "LONG": b"L1L\n", "LONG4": b"\x8b\1\0\0\0\1", "FLOAT": b"F1\n",
        "STRING": b"S'a'\n", "BINSTRING": b"T\1\0\0\0a", "UNICODE": b"Va\n",
        "SHORT_BINUNICODE": b"\x8c\1a", "BINUNICODE8": b"\x8d" + bytes(8),
        "BINBYTES": b"B\0\0\0\0", "SHORT_BINBYTES": b"C\0", "BINBYTES8": b"\x8e" + bytes(8),
        "BYTEARRAY8": b"\x96" + bytes(8), "LIST": b"(l", "DICT": b"(d", "EMPTY_SET": b"\x8f",
        "FROZENSET": b"(\x91", "ADDITEMS": b"\x8f(\x90", "POP": b"NN0", "DUP": b"N2",
        "POP_MARK": b"N(1", "PUT": b"Np0\n", "GET": b"Np0\ng0\n", "MEMOIZE": b"N\x94",
        "EXT1": b"\x82\1", "EXT2": b"\x83\1\0", "EXT4": b"\x84\1\0\0\0", "INST": b"(ia\nb\n",
        "OBJ": b"(Na", "STACK_GLOBAL": text("a") * 2 + b"\x93", "PERSID": b"P0\n",
        "FRAME": b"\x95" + bytes(8), "NEXT_BUFFER": b"\x97", "READONLY_BUFFER": b"N\x98",
        "unknown": b"\xfe", "protocol 9": b"\x80\x09N", "two results": b"NN",
        "a mark left": b"(N", "no mark": b"t", "memo": b"h\x05", "too few": b"\x86",
        "append to a dict": b"}Na", "items of a list": b"](NNu", "an odd number": b"}(NNNu",
        "list as key": b"}]Ns", "tuple as key": b"})Ns", "mapping as key": b"}}Ns",
        "call of None": b"N)R", "call of a text": text("a") + b")R",
        "no arguments": ORDERED + b"NR", "no result": b"",
        "make None": b"N)\x81", "make a mapping": ORDERED + b")\x81", "build None": b"NNb",
        "attributes": ORDERED + b")R" + mapping(items=b"N") + b"b", "persistent None": b"NQ",
        "persistent tuple": b")Q", "persistent text": text("storage") + b"Q",
        "text not UTF-8": b"X\1\0\0\0\xff", "half a pair": text("\ud800"),
        "text cut": b"X\xff\0\0\0a",
        "name not ASCII": b"c\xff\nx\n", "name cut": b"ctorch", "number cut": b"\x8a\xffa",
        "old text": b"U\1\xff",
    }  # fmt: skip
    for what, body in bodies.items():
        yield what, ".pt", checkpoint(program(b"}" + text("w") + body + b"s"))
    yield "bytes after the pickle", ".pt", checkpoint(WEIGHTS + b"N.", BYTES)
    yield "no end", ".pt", checkpoint(WEIGHTS[:-1], BYTES)
    yield "an empty pickle", ".pt", checkpoint(b"")
    yield "no protocol and no end", ".pt", checkpoint(b"N")


def claims() -> Iterator[Malformed]:
    """Tensors that are not inside their bytes, or are none."""
    tensors = {
        "a terabyte of one element": tensor(shape=(2**38,), strides=(0,)),
        "stride 0": tensor(shape=(8,), strides=(0,)),
        "beyond its storage": tensor(shape=(5,)),
        "offset beyond": tensor(offset=1),
        "strides beyond": tensor(shape=(2, 2), strides=(3, 1)),
        "a negative offset": tensor(offset=-1),
        "a negative size": tensor(shape=(-4,)),
        "a negative stride": tensor(strides=(-1,)),
        "more sizes than strides": tensor(shape=(2, 2)),
        "a size of 2^64": tensor(shape=(2**64,), strides=(0,)),
        "a product of 2^64": tensor(shape=(2**32, 2**32), strides=(0, 0)),
        "an empty giant": tensor(shape=(0, 2**40, 2**40), strides=(0, 0, 0)),
        "an offset of 2^70": tensor(offset=2**70, shape=(0,)),
        "33 dimensions": tensor(shape=(1,) * 33, strides=(1,) * 33),
        "a storage larger than its bytes": tensor(storage(numel=5)),
        "a storage smaller than its bytes": tensor(storage(numel=3), shape=(3,)),
        "a negative storage": tensor(storage(numel=-1)),
        "a giant storage": tensor(storage(numel=2**62)),
        "another dtype": tensor(storage(kind=name("torch", "DoubleStorage")), shape=(2,)),
        "an unknown storage": tensor(storage(key="7")),
        "a storage outside": tensor(storage(key="../version")),
        "quantized": tensor(storage(kind=name("torch", "QInt8Storage"), numel=16)),
        "no storage": tensor(b"N"),
        "a text for a storage": tensor(text("0")),
        "gradient of two": tensor(grad=number(2)),
        "hooks": tensor(hooks=ORDERED + b")R" + text("a") + b"Ns"),
        "a text for hooks": tensor(hooks=text("a")),
        "negated": tensor(more=mapping(neg=b"\x88")),
        "version 3 without dtype": tensor(function="_rebuild_tensor_v3"),
        "version 3, another dtype": tensor(
            function="_rebuild_tensor_v3", more=name("torch", "float64")
        ),
        "version 3, no dtype": tensor(function="_rebuild_tensor_v3", more=text("float32")),
        "sizes as a text": name("torch._utils", "_rebuild_tensor_v2")
        + b"(" + storage() + number(0) + text("4") + numbers((1,)) + b"\x89" + HOOKS + b"tR",
        "sizes that are floats": name("torch._utils", "_rebuild_tensor_v2")
        + b"(" + storage() + number(0) + b"G" + bytes(8) + b"\x85" + numbers((1,)) + b"\x89"
        + HOOKS + b"tR",
        "a parameter of nothing": name("torch._utils", "_rebuild_parameter")
        + b"(N\x89" + HOOKS + b"tR",
    }  # fmt: skip
    for what, body in tensors.items():
        yield what, ".pt", checkpoint(program(mapping(w=body)), BYTES)
    two = mapping(w=tensor(), v=tensor(storage(kind=name("torch", "IntStorage"))))
    yield "one storage of two dtypes", ".pt", checkpoint(program(two), BYTES)
    functions = ("_rebuild_sparse_tensor", "_rebuild_qtensor", "_rebuild_meta_tensor_no_storage")
    for function in (*functions, "_rebuild_nested_tensor", "_rebuild_device_tensor_from_numpy"):
        body = name("torch._utils", function) + b")R"
        yield function, ".pt", checkpoint(program(mapping(w=body)))
    sparse = torch.eye(3).to_sparse()
    yield "sparse", ".pt", save_bytes({"w": sparse})
    yield "meta", ".pt", save_bytes({"w": torch.empty(3, device="meta")})
    yield "a lie of sparse indices", ".pt", save_bytes({"w": torch.sparse_coo_tensor(
        torch.tensor([[0, 2**40]]), torch.ones(2), (2**41,), check_invariants=False)})  # fmt: skip


def values() -> Iterator[Malformed]:
    """What is no state dict."""
    contents = {
        "no tensors": {"epoch": 3},
        "nothing": {},
        "a list": [STATE, STATE],
        "one tensor": torch.ones(3),
        "a number": 3,
        "names that are numbers": {0: torch.ones(2), 1: torch.ones(2)},
        "a name that is a number": {"a": torch.ones(2), 1: torch.ones(2)},
        "two models": {"generator": STATE, "discriminator": STATE | {"x": torch.ones(1)}},
        "optimizer alone": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{}]},
        "two at one name": {"a.b": STATE, "a": {"b": {"w": torch.ones(1)}}},
        "a set": {"w": torch.ones(2), "x": {1, 2}},
        "bytes": {"w": torch.ones(2), "x": b"abc"},
        "a byte array": {"w": torch.ones(2), "x": bytearray(9)},
        "a complex number": {"w": torch.ones(2), "x": 1j},
        "a NumPy number": {"w": torch.ones(2), "x": np.float64(1)},
        "a NumPy array": {"w": torch.ones(2), "x": np.ones(2)},
        "a type": {"w": torch.ones(2), "x": int},
        "a layout": {"w": torch.ones(2), "x": torch.strided},
        "a module": {"w": torch.ones(2), "x": torch.nn.ReLU()},
    }
    for what, content in contents.items():
        yield what, ".pt", save_bytes(content)
        yield f"{what} before 1.6", ".th", save_bytes(content, legacy=True)


def legacy_files() -> Iterator[Malformed]:
    """The format before 1.6."""
    good = {"0": (4, bytes(16))}
    weights = mapping(w=tensor(old_storage()))
    files = {
        "version": legacy(weights, good, version=number(1000)),
        "no version": legacy(weights, good, version=b"N"),
        "facts": legacy(weights, good, facts=b"N"),
        "big-endian": legacy(weights, good, facts=mapping(little_endian=b"\x89")),
        "no storages": legacy(weights),
        "other elements": legacy(weights, {"0": (5, bytes(16))}),
        "negative elements": legacy(weights, {"0": (-1, bytes(16))}),
        "other storages": legacy(weights, {"1": (4, bytes(16))}),
        "one storage too many": legacy(weights, good | {"1": (4, bytes(16))}),
        "storage twice": legacy(weights, good, keys=b"](" + text("0") * 2 + b"e"),
        "keys are no list": legacy(weights, good, keys=text("0")),
        "key that is a list": legacy(weights, good, keys=b"](]e"),
        "a view of a storage": legacy(
            mapping(w=tensor(old_storage(view=b"(" + text("1") + number(0) + number(4) + b"t"))),
            good,
        ),
        "a terabyte": legacy(mapping(w=tensor(old_storage(numel=2**38), shape=(2**38,)))),
        "a giant": legacy(mapping(w=tensor(old_storage(numel=2**70)))),
        "stride 0": legacy(mapping(w=tensor(old_storage(), shape=(2**38,), strides=(0,))), good),
        "a module": legacy(b"(" + text("module") + ORDERED + text("") * 2 + b"tQ"),
        "bytes after": legacy(weights, good) + b"\0",
        "bytes missing": legacy(weights, good)[:-1],
        "only the magic": legacy(weights)[:16],
        "five-tuple": legacy(mapping(w=tensor(storage())), good),
    }
    for what, content in files.items():
        yield f"legacy {what}", ".pth", content


def pickle_bombs() -> Iterator[Malformed]:
    """Small files that take much memory or time of a careless reader."""
    zeros = bytes(64 << 20)
    yield "zip bomb", ".pt", checkpoint(WEIGHTS, {"0": zeros}, method=8)
    yield "gzip bomb", ".pt", gzip.compress(zeros, 1)
    yield "lists in lists", ".pt", checkpoint(program(b"]" * 500_000 + b"a" * 499_999))
    yield "tuples in tuples", ".pt", checkpoint(program(b")" + b"\x85" * 1_500_000))
    yield "marks", ".pt", checkpoint(program(b"(" * 500_000 + b"t" * 500_000))
    laughs = b"]q\0" + b"".join(b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9
                               + b"eq" + bytes([i + 1]) for i in range(100))  # fmt: skip
    yield "billion laughs", ".pt", checkpoint(program(mapping(a=laughs)))
    inner = b"}q\0"
    for i in range(4):
        inner = inner + b"}(" + b"".join(
            text(f"{k}") + b"h" + bytes([i]) for k in range(200)
        ) + b"uq" + bytes([i + 1])  # fmt: skip
    yield "mappings of one mapping", ".pt", checkpoint(program(b"(" + inner + b"t"))
    yield "a long text", ".pt", checkpoint(program(mapping(a=text("a" * (2 << 20)))))
    yield "a text of 4 GB", ".pt", checkpoint(program(b"X\xff\xff\xff\xff"))
    yield "a million lists", ".pt", checkpoint(program(b"](" + b"]" * 1_200_000 + b"e"))
    yield (
        "a million memos",
        ".pt",
        checkpoint(program(b"N" + b"".join(b"r" + struct.pack("<I", i) for i in range(1_200_000)))),
    )
    yield "a memo far away", ".pt", checkpoint(program(b"Nj\xff\xff\xff\xff"))
    repeated = b"".join(text(f"{i}") + b"h\x01" for i in range(5000))
    yield "one tensor under 5,000 names", ".pt", checkpoint(
        program(b"}(" + text("w") + tensor(storage(numel=2**18), shape=(2**18,)) + b"q\x01" +
                b"".join(text(f"{i}") + tensor(storage(numel=2**18), shape=(2**18,))
                         for i in range(300)) + repeated + b"u"),
        {"0": bytes(2**20)},
    )  # fmt: skip
