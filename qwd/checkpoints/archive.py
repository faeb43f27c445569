"""The zip archive around a file of torch.save, held to exactly what torch.save writes.

Readers of zip archives disagree about files that contradict themselves; here such a file is
refused, so that torch sees only what was checked:

    local header, name, extra, bytes [, descriptor]      once per record, from byte 0 on, no gaps
    central directory                                    one entry per record, no other
    [zip64 end record and locator,] end record           up to the last byte of the file

Every record is stored (not compressed, so that no small file unpacks to a large one), appears
once, has the same name, sizes and CRC-32 wherever they are written, and bytes of that CRC-32, which
torch.load never compares. Layout: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

import struct
from dataclasses import dataclass

from qwd.checkpoints.refused import RefusedError, shown

LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"
END, END64, LOCATOR, DESCRIPTOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"
LOCAL_SIZE, CENTRAL_SIZE, END_SIZE, END64_SIZE, LOCATOR_SIZE = 30, 46, 22, 56, 20

FLAGS = 0x0808
"""bit 3: sizes follow the bytes in a descriptor; bit 11: the name is UTF-8"""
ZIP64, PADDING = 0x0001, 0x4246
"""the extra fields that torch.save writes: sizes of 64 bits, and bytes that align the tensors"""
MOST_RECORDS = 200_000
LONGEST_NAME = 512


@dataclass(frozen=True)
class Record:
    """One file of the archive: where its bytes are."""

    name: str
    start: int
    size: int
    crc: int


@dataclass(frozen=True)
class _Entry:
    """What the central directory says of a record."""

    name: bytes
    flags: int
    crc: int
    size: int
    header: int
    """where the local header begins"""


def records(data: memoryview) -> list[Record]:
    """The records of an archive in their order; RefusedError where it is not as above.

    Their CRC-32 are those that the archive states, not yet compared.
    """
    count, start, stop = _directory(data)
    entries = sorted(_entries(data, count, start, stop), key=lambda entry: entry.header)
    found, position = [], 0
    for i, entry in enumerate(entries):
        following = entries[i + 1].header if i + 1 < len(entries) else start
        if entry.header != position:
            raise RefusedError(f"{_name(entry)} does not begin where the record before it ends")
        found.append(_record(data, entry, following))
        position = following
    if len({record.name for record in found}) != len(found):
        raise RefusedError("a record is in the archive twice")
    return found


def _directory(data: memoryview) -> tuple[int, int, int]:
    """Number of entries, and where the central directory begins and ends."""
    end = len(data) - END_SIZE
    if end < 0 or data[end : end + 4] != END:
        raise RefusedError("its end is missing, or bytes follow it: it is cut off or damaged")
    disk, first, here, count, size, start, comment = struct.unpack("<HHHHIIH", data[end + 4 :])
    if disk or first or comment or here != count:
        raise RefusedError("its end record is damaged")
    locator = end - LOCATOR_SIZE
    if locator < 0 or data[locator : locator + 4] != LOCATOR:
        stop = end
    else:
        stop = locator - END64_SIZE
        disk, offset, disks = struct.unpack("<IQI", data[locator + 4 : end])
        if disk or disks != 1 or offset != stop or stop < 0 or data[stop : stop + 4] != END64:
            raise RefusedError("its zip64 end record is damaged")
        length, *_, disk, first, here, wide_count, wide_size, wide_start = struct.unpack(
            "<QHHIIQQQQ", data[stop + 4 : locator]
        )
        wide = (wide_count, wide_size, wide_start)
        narrow = ((count, 0xFFFF), (size, 0xFFFFFFFF), (start, 0xFFFFFFFF))
        told = all(n in (w, top) for w, (n, top) in zip(wide, narrow, strict=True))
        if length != END64_SIZE - 12 or disk or first or here != wide_count or not told:
            raise RefusedError("its two end records contradict each other")
        count, size, start = wide
    if not 0 < count <= MOST_RECORDS:
        raise RefusedError(f"it has {count:,} records", f"1 to {MOST_RECORDS:,}")
    if start + size != stop or size < count * CENTRAL_SIZE:
        raise RefusedError("its central directory is not where its end record says")
    return count, start, stop


def _entries(data: memoryview, count: int, position: int, stop: int) -> list[_Entry]:
    found = []
    for _ in range(count):
        if position + CENTRAL_SIZE > stop or data[position : position + 4] != CENTRAL:
            raise RefusedError("its central directory is damaged")
        fields = struct.unpack("<HHHHHHIIIHHHHHII", data[position + 4 : position + CENTRAL_SIZE])
        _, _, flags, method, _, _, crc, packed, size, named, extra, comment, disk, *_, header = (
            fields
        )
        after = position + CENTRAL_SIZE + named
        position = after + extra + comment
        if position > stop or not 0 < named <= LONGEST_NAME or comment:
            raise RefusedError("its central directory is damaged")
        name = bytes(data[after - named : after])
        wide = [value for value in (size, packed, header) if value == 0xFFFFFFFF]
        values = iter(_wide(data[after : after + extra], len(wide)))
        size, packed, header = (
            next(values) if value == 0xFFFFFFFF else value for value in (size, packed, header)
        )
        entry = _Entry(name, flags, crc, size, header)
        if method != 0:
            raise RefusedError(f"{_name(entry)} is compressed", "records that are stored")
        if flags & ~FLAGS or disk or packed != size:
            raise RefusedError(f"{_name(entry)} is encrypted, split or damaged")
        found.append(entry)
    if position != stop:
        raise RefusedError("its central directory is longer than its entries")
    return found


def _record(data: memoryview, entry: _Entry, following: int) -> Record:
    """The record of ``entry``, whose local header and descriptor must say the same."""
    position = entry.header
    if position + LOCAL_SIZE > following or data[position : position + 4] != LOCAL:
        raise RefusedError(f"{_name(entry)} has no header where the directory says")
    _, flags, method, _, _, crc, packed, size, named, extra = struct.unpack(
        "<HHHHHIIIHH", data[position + 4 : position + LOCAL_SIZE]
    )
    after = position + LOCAL_SIZE + named
    start = after + extra
    if start + entry.size > following or flags != entry.flags or method != 0:
        raise RefusedError(f"{_name(entry)} contradicts the directory")
    if data[after - named : after] != entry.name:
        raise RefusedError(f"{_name(entry)} has another name in its own header")
    _wide(data[after:start], 0)
    later = bool(flags & 8)
    for told, true in ((crc, entry.crc), (packed, entry.size), (size, entry.size)):
        if told != true and not (later and told == 0) and told != 0xFFFFFFFF:
            raise RefusedError(f"{_name(entry)} contradicts the directory")
    stop = start + entry.size
    descriptor = data[stop:following]
    if later:
        sizes = struct.pack("<QQ" if len(descriptor) == 24 else "<II", entry.size, entry.size)
        if descriptor != DESCRIPTOR + struct.pack("<I", entry.crc) + sizes:
            raise RefusedError(f"{_name(entry)} contradicts what follows its bytes")
    elif len(descriptor):
        raise RefusedError(f"bytes that belong to no record follow {_name(entry)}")
    try:
        return Record(entry.name.decode("utf-8"), start, entry.size, entry.crc)
    except UnicodeDecodeError:
        raise RefusedError(f"{_name(entry)} is a name that is not UTF-8") from None


def _wide(extra: memoryview, wanted: int) -> list[int]:
    """The first ``wanted`` values of 64 bits in an extra field; RefusedError where damaged."""
    position, values = 0, []
    while position < len(extra):
        if position + 4 > len(extra):
            raise RefusedError("an extra field is damaged")
        tag, size = struct.unpack("<HH", extra[position : position + 4])
        content = extra[position + 4 : position + 4 + size]
        if tag not in (ZIP64, PADDING) or len(content) != size:
            raise RefusedError("an extra field is of another kind than torch.save writes")
        if tag == ZIP64 and not values:
            values = list(struct.unpack(f"<{size // 8}Q", content[: size // 8 * 8]))
        position += 4 + size
    if len(values) < wanted:
        raise RefusedError("a size of 64 bits is missing")
    return values[:wanted]


def _name(entry: _Entry) -> str:
    return repr(shown(entry.name.decode("utf-8", "replace"), 80))
