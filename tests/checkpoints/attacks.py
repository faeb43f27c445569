"""Files that would run code: each kind would make a canary, a file or folder at a given path.

`functions` differ in what is called, `forms` in how a file brings a reader to call it.
"""

import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.checkpoints.making import (
    archive,
    checkpoint,
    legacy,
    mapping,
    name,
    number,
    old_storage,
    program,
    save_bytes,
    storage,
    tensor,
    text,
)

Call = tuple[str, str, tuple[Any, ...]]
BYTES = {"0": bytes(16)}


def functions(canary: Path) -> dict[str, Call]:
    """Module, name and arguments of calls that make ``canary``; plain pickle carries them out."""
    path = str(canary)
    python, shell = f"open({path!r}, 'w').close()", f"touch '{path}'"
    called = [
        ("os", "system", (shell,)),
        ("posix", "system", (shell,)),
        ("os", "mkdir", (path,)),
        ("posix", "mkdir", (path,)),
        ("os", "makedirs", (path,)),
        ("os", "mkfifo", (path,)),
        ("os", "symlink", ("/", path)),
        ("builtins", "eval", (python,)),
        ("builtins", "exec", (python,)),
        ("__builtin__", "eval", (python,)),
        ("builtins", "open", (path, "w")),
        ("io", "open", (path, "w")),
        ("_io", "FileIO", (path, "w")),
        ("subprocess", "call", (["touch", path],)),
        ("subprocess", "run", (["touch", path],)),
        ("subprocess", "check_output", (["touch", path],)),
        ("subprocess", "getoutput", (shell,)),
        ("timeit", "timeit", ("pass", python, None, 1)),
        ("cProfile", "run", (python, "/dev/null")),
        ("shutil", "copyfile", ("/dev/null", path)),
        ("bz2", "open", (path, "w")),
        ("codecs", "open", (path, "w")),
        ("zipfile", "ZipFile", (path, "w")),
        ("tarfile", "open", (path, "w")),
        ("gzip", "open", (path, "w")),
        ("logging", "FileHandler", (path,)),
        ("numpy", "memmap", (path, "u1", "w+", 0, 1)),
        ("torch", "save", ([1], path)),
        ("pickle", "loads", (pickle.dumps(_Made("os", "mkdir", (path,))),)),
        ("_pickle", "loads", (pickle.dumps(_Made("os", "mkdir", (path,))),)),
    ]
    return {f"{module}.{attribute}": (module, attribute, a) for module, attribute, a in called}


class _Made:
    """What pickles as a call of a function."""

    def __init__(self, module: str, attribute: str, arguments: tuple[Any, ...]):
        self.call = (module, attribute, arguments)

    def __reduce__(self) -> Any:
        import importlib

        module, attribute, arguments = self.call
        renamed = {"__builtin__": "builtins"}.get(module, module)
        return getattr(importlib.import_module(renamed), attribute), arguments


def call_pickle(call: Call) -> bytes:
    """A pickle of protocol 2 that makes the call, its name written as given."""
    module, attribute, arguments = call
    inner = pickle.dumps(arguments, protocol=2)[2:-1]
    return program(name(module, attribute) + inner + b"R")


def forms(canary: Path) -> Iterator[tuple[str, bytes]]:
    """(what, file) of every way to smuggle a call of os.mkdir; ``what`` begins with the ending."""
    path = str(canary)
    made = _Made("os", "mkdir", (path,))
    mkdir = name("os", "mkdir")
    arguments = b"(" + text(path) + b"t"
    call = mkdir + arguments + b"R"
    weights = mapping(w=tensor())

    def in_zip(body: bytes) -> bytes:
        return checkpoint(program(body), BYTES)

    def beside(body: bytes) -> bytes:
        return in_zip(mapping(w=tensor(), x=body))

    for protocol in range(6):
        raw = pickle.dumps({"w": [1.0], "x": made}, protocol=protocol)
        yield f".pt a bare pickle of protocol {protocol}", raw
        yield f".pth protocol {protocol} in an archive", checkpoint(raw)
    yield ".pt beside a tensor", beside(call)
    yield ".bin torch.save of an object", save_bytes({"w": torch.ones(2), "x": made})
    yield ".th the same before 1.6", save_bytes({"w": torch.ones(2), "x": made}, legacy=True)
    yield ".pt a whole module", save_bytes(torch.nn.Linear(2, 2))
    yield ".pt INST", beside(b"(" + text(path) + b"ios\nmkdir\n")
    yield ".pt OBJ", beside(b"(" + mkdir + text(path) + b"o")
    yield ".pt NEWOBJ", beside(name("_io", "FileIO") + b"(" + text(path) + text("w") + b"t\x81")
    yield (
        ".pt NEWOBJ_EX",
        beside(name("_io", "FileIO") + b"(" + text(path) + text("w") + b"t}\x92"),
    )
    yield ".pt STACK_GLOBAL", beside(text("os") + text("mkdir") + b"\x93" + arguments + b"R")
    yield ".pt EXT1", beside(b"\x82\x01" + arguments + b"R")
    yield ".pt through the memo", beside(mkdir + b"q\x070h\x07" + arguments + b"R")
    yield ".pt thrown away", in_zip(call + b"0" + weights)
    yield ".pt as a key", in_zip(b"}" + call + b"K\x01s")
    yield ".pt after the end", checkpoint(program(weights) + program(call), BYTES)
    yield ".pt BUILD", beside(b"c__main__\nX\n)\x81" + mapping(__setstate__=mkdir) + b"b")
    yield (
        ".pt BUILD of an OrderedDict",
        beside(name("collections", "OrderedDict") + b")R" + mapping(items=mkdir) + b"b"),
    )
    yield ".pt a container's class", beside(b"(" + text("module") + mkdir + text("") * 2 + b"tQ")
    yield ".pt a storage's class", in_zip(mapping(w=tensor(storage(kind=mkdir))))
    yield ".pt PERSID", beside(b"Pos.mkdir\n")
    yield ".pt hooks", in_zip(mapping(w=tensor(hooks=b"}K\x01" + mkdir + b"s")))
    yield (
        ".pt hooks in order",
        in_zip(
            mapping(w=tensor(hooks=name("collections", "OrderedDict") + b")RK\x01" + mkdir + b"s"))
        ),
    )
    yield ".pt the dtype", in_zip(mapping(w=tensor(function="_rebuild_tensor_v3", more=call)))
    yield (
        ".pt a subclass",
        beside(
            name("torch._tensor", "_rebuild_from_type_v2") + b"(" + mkdir + arguments * 2 + b"tR"
        ),
    )
    yield (
        ".pt a parameter with state",
        beside(
            name("torch._utils", "_rebuild_parameter_with_state")
            + b"("
            + tensor()
            + b"\x89}"
            + mapping(grad=call)
            + b"tR"
        ),
    )
    yield ".pt codecs", beside(name("_codecs", "encode") + b"(" + text("x") + text("os") + b"tR")
    yield (
        ".pt getattr",
        beside(name("builtins", "getattr") + b"(" + mkdir + text("f") + b"tR" + call),
    )
    yield ".pt a dotted name", beside(name("torch._utils", "sys.modules") + call)
    yield ".pt a name with escapes", beside(name("o\\x73", "mkdir") + arguments + b"R")
    yield ".pt a default factory", beside(name("collections", "defaultdict") + b"(" + mkdir + b"tR")
    good, bad = program(weights), program(call)
    yield ".pt two pickles", archive([("a/data.pkl", good), ("a/data.pkl", bad)])
    yield ".pt another pickle", archive([("a/data.pkl", good), ("a/extra.pkl", bad)])
    yield ".pt another root", archive([("b/data.pkl", bad), ("a/data.pkl", good)])
    yield (
        ".pt another name in the header",
        archive([("a/data.pkl", bad), ("a/version", b"3")], local={"name": b"a/version0"}),
    )
    yield ".pt compressed", checkpoint(bad, method=8)
    yield ".pt before the archive", bad + checkpoint(good, BYTES)
    yield ".pt after the archive", checkpoint(good, BYTES) + bad
    yield ".pt TorchScript", archive([("a/data.pkl", bad), ("a/constants.pkl", bad)])
    yield ".pt TorchScript code", archive([("a/code/x.py", b"import os"), ("a/data.pkl", bad)])
    yield ".pt legacy object", legacy(call)
    yield (
        ".pt legacy beside",
        legacy(mapping(w=tensor(old_storage()), x=call), {"0": (4, bytes(16))}),
    )
    yield ".pt legacy version", legacy(weights, version=call)
    yield ".pt legacy facts", legacy(weights, facts=call)
    yield ".pt legacy keys", legacy(mapping(a=number(1)), keys=call)
    yield ".pt legacy magic", program(call) + legacy(weights)[16:]
    yield ".pt legacy in front", program(call)[:-1] + b"0" + legacy(weights)[2:]
    yield ".pt tar", _tar(bad)
    yield ".pt tar and legacy", _tar(bad, first=legacy(mapping(a=number(1)))[:100])
    yield ".pt gzip", gzip.compress(bad)
    yield ".pt NumPy", _array(made)
    yield ".pt NumPy archive", archive([("x.npy", _array(made))])
    yield ".safetensors a pickle", bad
    yield ".safetensors an archive", checkpoint(bad)
    yield ".safetensors legacy", legacy(call)


def _array(made: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([made], dtype=object), allow_pickle=True)
    return file.getvalue()


def _tar(content: bytes, first: bytes = b"storages") -> bytes:
    """The format before 0.1.10; ``first`` is where the name of the first member stands."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as packed:
        for member in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    block = bytearray(file.getvalue())
    block[: len(first)] = first[:100]
    block[257:265] = bytes(8) if first[:1] == b"\x80" else block[257:265]
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


def zipped(files: dict[str, bytes]) -> bytes:
    """An archive as Python's own library writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for path, content in files.items():
            packed.writestr(path, content)
    return buffer.getvalue()
