"""CRC-32 at the speed of memory.

isal computes it by carry-less multiplication, at several times the speed of the standard library's
zlib, and lets other threads run meanwhile.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from isal.isal_zlib import crc32

WORTH_THREADS = 8 << 20
"""bytes; below, starting threads takes longer than the sums"""


def crc32_each(parts: Sequence[memoryview]) -> list[int]:
    """CRC-32 of each of ``parts``, in parallel over the cores, the largest first."""
    if len(parts) < 2 or sum(part.nbytes for part in parts) < WORTH_THREADS:
        return [crc32(part) for part in parts]
    order = sorted(range(len(parts)), key=lambda i: -parts[i].nbytes)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        found = dict(zip(order, pool.map(lambda i: crc32(parts[i]), order), strict=True))
    return [found[i] for i in range(len(parts))]
