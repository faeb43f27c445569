"""Files of torch.save: the only place that calls torch.load.

Threat model. The file comes from a stranger who may write any bytes; the machine, the folder it
lies in and the installed libraries are trusted. Reading a file must not run code from it, write or
open other files, wait, take memory or time out of proportion to its size, crash the process, or
give other numbers than those that were saved.

Accepted, in this order; everything else is refused with its reason, and nothing is tried instead:

1. a regular file                               `opening`
2. that begins as torch.save begins             `formats`: zip archive, or the format before 1.6
3. an archive without contradictions            `archive`: stored records, once each, no gaps
4. the records of torch.save, CRC-32 right      `contents`
5. a pickle of few instructions and names       `pickles`, `allowed`: run on notes, not objects
6. tensors inside the bytes that are there      `claims`
7. what torch's weights_only unpickler takes    here

Refused by name: TorchScript programs, tar archives, whole pickled modules and other objects,
sparse, quantized, meta and nested tensors, tensors of subclasses, big-endian files, compressed
archives.

Not covered: a file that another process changes between the check and the reading is refused where
its time or size tells; a mapped file that is cut off while in use ends the process (SIGBUS); the
format before 1.6 has no checksums.
"""

import io
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from qwd.checkpoints import legacy
from qwd.checkpoints.claims import Claims
from qwd.checkpoints.contents import contents
from qwd.checkpoints.formats import LEGACY, ZIP, described
from qwd.checkpoints.opening import Opened, opened
from qwd.checkpoints.pickles import Machine
from qwd.checkpoints.refused import RefusedError, reading

RIGHT = "a state dict saved by torch.save"
ALIGNMENT = 8
"""bytes; torch.save aligns storages to 64, other programs that wrote the archive may not"""


def read_pickle(path: Path) -> Any:
    """What a file of torch.save holds: tensors on the CPU, in plain containers.

    Tensors of a zip archive are mapped, not copied. Raises InputError where the file is none that
    is accepted (above).
    """
    with reading(path, " safely", RIGHT):
        file = opened(path)
        if file.data[:4] == ZIP:
            return _read_archive(file)
        if file.data[: len(LEGACY)] == LEGACY:
            legacy.check(file.data)
            return _load(io.BufferedReader(_Bytes(file.data)), mapped=False)
        raise RefusedError(described(file.data))


def _read_archive(file: Opened) -> Any:
    found = contents(file.data)
    claims = Claims({key: r.size for key, r in found.storages.items()}, len(file.data))
    stream = io.BytesIO(found.pickle)
    Machine(claims).run(stream)
    if stream.tell() != len(found.pickle):
        raise RefusedError("bytes follow the end of its pickle")
    claims.check()
    aligned = all(record.start % ALIGNMENT == 0 for record in found.storages.values())
    content = _load(file.path, mapped=aligned)
    file.still_the_same()
    return content


def _load(source: Any, *, mapped: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice, for its own users
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        # torch's text advises to turn the protection off; the first sentence says what was met.
        lines = re.split(r"\n|\.\s", str(error).strip(), maxsplit=1)
        raise RefusedError(f"torch refuses it ({lines[0] or type(error).__name__:.150})") from error


class _Bytes(io.RawIOBase):
    """The mapped bytes as a file that has no descriptor.

    torch takes a descriptor as leave to try the tar format first, and reads past what was checked.
    """

    def __init__(self, data: memoryview):
        self._data, self._position = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._data[self._position : self._position + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}
        self._position = max(base[whence] + offset, 0)
        return self._position
