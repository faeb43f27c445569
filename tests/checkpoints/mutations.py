"""Random damage to a file: flipped bits, overwritten, removed, repeated and exchanged parts."""

from collections.abc import Iterator

import numpy as np

Random = np.random.Generator


def mutations(content: bytes, n: int, seed: int) -> Iterator[bytes]:
    """``n`` changed versions of ``content``, the same for the same seed."""
    random = np.random.default_rng(seed)
    kinds = (_bits, _bits, _bytes, _cut, _splice, _removed, _repeated, _zeros, _exchanged)
    for i in range(n):
        changed = content
        while changed == content:
            changed = kinds[i % len(kinds)](random, content)
        yield changed


def _span(random: Random, content: bytes) -> tuple[int, int]:
    """A part of at least one byte, short ones as likely as long ones."""
    size = min(int(2 ** random.uniform(0, np.log2(len(content)))), len(content) - 1)
    start = int(random.integers(0, len(content) - size))
    return start, start + max(size, 1)


def _bits(random: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 9))):
        changed[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _bytes(random: Random, content: bytes) -> bytes:
    start, stop = _span(random, content)
    stop = min(stop, start + 16)
    return content[:start] + random.bytes(stop - start) + content[stop:]


def _cut(random: Random, content: bytes) -> bytes:
    return content[: int(random.integers(len(content)))]


def _splice(random: Random, content: bytes) -> bytes:
    """One part of the file written over another."""
    start, stop = _span(random, content)
    to = int(random.integers(0, len(content) - (stop - start) + 1))
    return content[:to] + content[start:stop] + content[to + stop - start :]


def _removed(random: Random, content: bytes) -> bytes:
    start, stop = _span(random, content)
    return content[:start] + content[stop:]


def _repeated(random: Random, content: bytes) -> bytes:
    start, stop = _span(random, content)
    return content[:stop] + content[start:]


def _zeros(random: Random, content: bytes) -> bytes:
    start, stop = _span(random, content)
    return content[:start] + bytes(stop - start) + content[stop:]


def _exchanged(random: Random, content: bytes) -> bytes:
    """Two neighbouring parts of one size, exchanged."""
    start, stop = _span(random, content)
    middle = (start + stop) // 2
    end = middle + (middle - start)
    return content[:start] + content[middle:end] + content[start:middle] + content[end:]
