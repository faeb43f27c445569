"""Files of torch.save before 1.6: pickles and bytes one after another.

    pickle    torch's magic number
    pickle    1001, the version of the format
    pickle    the machine: byte order, sizes of C's integers
    pickle    the object, whose storages are named by keys
    pickle    the list of those keys
    for each  elements as int64, then their bytes

The format has no checksum: a changed byte of a weight cannot be seen.
"""

from io import BytesIO
from typing import Any

from qwd.checkpoints.claims import Claims
from qwd.checkpoints.formats import LEGACY
from qwd.checkpoints.pickles import Machine
from qwd.checkpoints.refused import RefusedError

VERSION = 1001
LARGEST_PICKLES = 32 << 20
COUNT = 8
"""bytes of the number of elements before each storage"""


def check(data: memoryview) -> None:
    """RefusedError where ``data`` is not as above, to its last byte."""
    stream = BytesIO(data[:LARGEST_PICKLES])
    stream.seek(len(LEGACY))  # by which the format was recognised
    claims = Claims(None, len(data))
    machine = Machine(claims, legacy=True)
    version, facts = machine.run(stream), machine.run(stream)
    if version != VERSION:
        raise RefusedError(f"its format is of version {version!r:.40}", str(VERSION))
    if type(facts) is not dict or facts.get("little_endian") is not True:
        raise RefusedError("its tensors are not little-endian", "a file of a little-endian machine")
    machine.run(stream)
    keys = machine.run(stream)
    claims.check()
    _check_keys(keys, claims)
    position = stream.tell()
    for key in keys:
        storage = claims.storages[key]
        count = int.from_bytes(data[position : position + COUNT], "little", signed=True)
        position += COUNT + storage.nbytes
        if position > len(data):
            raise RefusedError("it is cut off")
        if count != storage.nbytes // storage.dtype.itemsize:
            raise RefusedError(f"storage {key!r:.40} has {count:,} elements, not those it claims")
    if position != len(data):
        raise RefusedError(f"{len(data) - position:,} bytes follow its end")


def _check_keys(keys: Any, claims: Claims) -> None:
    if type(keys) is not list or not all(type(key) in (str, int) for key in keys):
        raise RefusedError("its list of storages is damaged")
    if len(set(keys)) != len(keys) or set(keys) != set(claims.storages):
        raise RefusedError("its list of storages is not that of its tensors")
