"""The two passes over a chunk in NumPy: what the kernels compute, bit for bit.

Used where compiling would take longer than the work, and for what the kernels leave to it: chunks
with NaN or infinities, and float64 beyond the reach of fourth powers. Sums are kept in 64 lanes
over tiles of 4 x 64 elements, (r0 + r1) + (r2 + r3) per lane and tile, and
folded to 8 and then by pairs.
"""

import numpy as np
from numpy.typing import NDArray

LANES = 64
TILE = 4 * LANES

Array = NDArray[np.floating]
Chunk = NDArray[np.float64]


def moments(x: Array, origin: float) -> list[float]:
    """Sums of (x - origin)^1..4 over a chunk; not finite where x has elements that are not.

    About an origin near the mean no power sum is much larger than the central moment made of it.
    """
    tiles = _tiles(x, origin)
    powers = np.empty((4, *tiles.shape))
    np.subtract(tiles, origin, out=powers[0])
    np.multiply(powers[0], powers[0], out=powers[1])
    np.multiply(powers[1], powers[0], out=powers[2])
    np.multiply(powers[1], powers[1], out=powers[3])
    return _folded(powers)


def rounding(x: Array, a: float, scale: float) -> tuple[NDArray[np.int64], float]:
    """Elements per code, [256], and the sum of (w' - w)^2, of finite x under `minmax`.

    t = (x - a) / scale, q = round_half_even(t), w' - w = (q - t) * scale, for a scale above 0.
    """
    tiles = _tiles(x, a)
    position = tiles - a
    position /= scale
    code = np.rint(position)
    counts = np.bincount(code.ravel()[: x.size].astype(np.intp), minlength=256)
    position -= code
    position *= position
    return counts, _folded(position[np.newaxis])[0] * (scale * scale)


def _tiles(x: Array, fill: float) -> Chunk:
    size = -(-x.size // TILE) * TILE
    if size == x.size:
        return x.astype(np.float64).reshape(-1, 4, LANES)
    tiles = np.empty(size)
    tiles[: x.size] = x
    tiles[x.size :] = fill
    return tiles.reshape(-1, 4, LANES)


def _folded(terms: Chunk) -> list[float]:
    """The sum of each [tiles, 4, LANES] in a stack of them."""
    rows = (terms[:, :, 0] + terms[:, :, 1]) + (terms[:, :, 2] + terms[:, :, 3])
    lanes = np.add.reduce(rows, axis=1)
    eight = np.add.reduce(lanes.reshape(-1, LANES // 8, 8), axis=1).tolist()
    return [((a + b) + (c + d)) + ((e + f) + (g + h)) for a, b, c, d, e, f, g, h in eight]


def channel_errors(x: Array, levels: int) -> tuple[Array, Array, Chunk]:
    """Extremes of every row of x, and the sum of (w' - w)^2 with codes 0..levels over its range.

    The sum is NaN for a row with elements that are not finite.
    """
    lows, highs = x.min(axis=1), x.max(axis=1)
    a = lows.astype(np.float64)
    errors = np.empty(len(x))
    with np.errstate(over="ignore", invalid="ignore"):
        span = highs - a
        scale = span / levels
        short = (scale * levels < span) & (scale < np.finfo(np.float64).tiny)
        scale = np.where(short, np.nextafter(scale, np.inf), scale)
        finite = np.isfinite(x).all(axis=1)
        step = max(1, 2**16 // max(x.shape[1], TILE))
        for first in range(0, len(x), step):
            part = slice(first, first + step)
            low, unit = a[part, np.newaxis], np.where(span > 0, scale, 1.0)[part, np.newaxis]
            size = -(-x.shape[1] // TILE) * TILE
            tiles = np.empty((len(low), size))
            tiles[:, : x.shape[1]] = x[part]
            tiles[:, x.shape[1] :] = low
            position = (tiles - low) / unit
            position -= np.rint(position)
            position *= position
            steps = np.array(_folded(position.reshape(len(low), -1, 4, LANES)))
            errors[part] = steps * np.square(unit[:, 0])
    return lows, highs, np.where(finite, np.where(span > 0, errors, 0.0), np.nan)
