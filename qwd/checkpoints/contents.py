"""The records that a zip archive of torch.save has, by their names, with their bytes checked."""

import re
from dataclasses import dataclass

from qwd.checkpoints import archive
from qwd.checkpoints.archive import Record
from qwd.checkpoints.checksums import crc32_each
from qwd.checkpoints.refused import RefusedError, shown

STORAGE = re.compile(r"data/(0|[1-9][0-9]{0,19})")
SMALL = {
    "version",
    "byteorder",
    ".format_version",
    ".storage_alignment",
    ".data/serialization_id",
}
"""records of a few bytes: torch 1.6 wrote ``version`` alone, 1.13 to 2.7 added the others"""
LARGEST_SMALL = 64
LARGEST_PICKLE = 32 << 20


@dataclass(frozen=True)
class Contents:
    """A checked archive."""

    pickle: bytes
    storages: dict[str, Record]
    """by key, the n of ``data/n``"""


def contents(data: memoryview) -> Contents:
    """What an archive holds; RefusedError where that is not what torch.save writes."""
    root, named = _named(archive.records(data))
    if "data.pkl" not in named:
        raise RefusedError("it is a zip archive without data.pkl", "one that torch.save wrote")
    for name in SMALL & set(named):
        if named[name].size > LARGEST_SMALL:
            raise RefusedError(f"{root}/{name} has {named[name].size:,} bytes", "a few")
    if named["data.pkl"].size > LARGEST_PICKLE:
        raise RefusedError(
            f"its pickle has {named['data.pkl'].size:,} bytes", f"at most {LARGEST_PICKLE:,}"
        )
    found = list(named.values())
    sums = crc32_each([_bytes(data, record) for record in found])
    for record, crc in zip(found, sums, strict=True):
        if crc != record.crc:
            raise RefusedError(f"{shown(record.name, 80)!r} does not match its CRC-32: damaged")
    order = named.get("byteorder")
    if order is not None and bytes(_bytes(data, order)) != b"little":
        raise RefusedError("its tensors are not little-endian", "a file of a little-endian machine")
    storages = {name.removeprefix("data/"): named[name] for name in named if name[:5] == "data/"}
    return Contents(bytes(_bytes(data, named["data.pkl"])), storages)


def _named(records: list[Record]) -> tuple[str, dict[str, Record]]:
    """The folder that all records are in, and the records by their names below it."""
    names = [record.name for record in records]
    root, _, _ = names[0].partition("/")
    below = {record.name.removeprefix(f"{root}/"): record for record in records}
    if any(name == "constants.pkl" or name.startswith("code/") for name in below):
        raise RefusedError("it is a TorchScript program, which is code", "a state dict alone")
    if all(name.endswith(".npy") for name in names):
        raise RefusedError("it is an archive of NumPy arrays (.npz)", "a file of torch.save")
    for name, record in below.items():
        inside = record.name == f"{root}/{name}" and root not in ("", ".", "..")
        if not inside or not (name == "data.pkl" or name in SMALL or STORAGE.fullmatch(name)):
            raise RefusedError(
                f"it is a zip archive with {shown(record.name, 80)!r}", "one that torch.save wrote"
            )
    return root, below


def _bytes(data: memoryview, record: Record) -> memoryview:
    return data[record.start : record.start + record.size]
