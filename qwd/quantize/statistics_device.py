"""The two passes over a tensor that lies on a GPU, by kernels that Triton compiles.

Both are launched before anything is waited for: the second reads what the first found where it
lies, and what both found comes to the CPU in one piece. Order of additions and hence the last
digits are those of the GPU; codes are those of the CPU, and so are counts but for elements that lie
on a multiple of the standard deviation to the last digit.

A tensor that this cannot do, or not soon enough, is copied to the CPU and measured there, where the
figures are the same: a GPU that is no NVIDIA GPU or older than Volta, no Triton (there is none for
Windows), no C compiler for its launcher, few elements.
"""

import functools
import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwd.quantize import histogram
from qwd.quantize.outliers import SIGMAS
from qwd.quantize.statistics_assembly import FAR, Found, Moments, central, constant
from qwd.quantize.statistics_passes import Codes
from qwd.quantize.statistics_source import in_order_of_memory

LEAST = 2**17
"""elements that the CPU measures sooner, copied, than kernels are launched"""
NEW = 10**8
"""elements seen on GPUs from which Triton pays: importing and compiling takes some seconds"""
WARPS = 8
TILE = 8 * 32 * WARPS
"""elements that a program reads at a time, 8 a thread"""
REGISTERS = 64
"""that a thread has at most"""
PROGRAMS = 4
"""that a multiprocessor, with 65,536 registers, then runs at a time, so that all start at once"""
PART = 2**28
"""elements among which NaN are told from infinities at a time"""

_seen = 0


def found(w: Tensor, bits: tuple[int, ...]) -> Found | None:
    """All that is read from a tensor but the order of its elements.

    None where the CPU is to do it, as for float64 whose fourth powers are beyond it.
    """
    global _seen
    if w.numel() < LEAST:
        return None
    _seen += w.numel()
    if _seen < NEW:
        return None
    try:
        kernels = _kernels(w.device, w.dtype)
        return _measured(kernels, w, bits) if kernels else None
    except (torch.OutOfMemoryError, OSError):
        # No room for the copy of a tensor, if that is not dense or has 8 bits, or in the folder
        # where Triton keeps the variants of a kernel that it compiles.
        return None


def runs_on(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether large tensors on a GPU are measured there; compiles the kernels to find out."""
    return _kernels(device, dtype) is not None


@functools.cache
def _kernels(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """The kernels, where they can be compiled, run and count what the CPU does."""
    if torch.version.hip or torch.cuda.get_device_capability(device) < (7, 0):
        return None
    ramp = torch.arange(256.0, device=device).repeat(9)
    ramp[77] = math.nan
    trial = torch.cat([ramp, ramp.new_zeros(10**5)])  # some are beyond every rule
    try:
        from qwd.quantize import kernels_device

        found = _measured(kernels_device, trial.to(_held(dtype)), (8,))
    except torch.OutOfMemoryError:  # another time there may be room
        raise
    except Exception:  # of Triton, of the C compiler that it calls, of the driver
        return None
    expected, _ = histogram.found(trial.bfloat16().cpu(), (8,), threads=1)
    return kernels_device if _counted(found) == _counted(expected) else None


def _counted(found: Found | None) -> object:
    if found is None or found.codes is None:
        return None
    codes = found.codes
    return found.nan, found.inf, codes.zeros, codes.outside, [n.tolist() for n in codes.counts]


def _held(dtype: torch.dtype) -> torch.dtype:
    """What the kernels read: bfloat16, which holds every float8, for 8 bits."""
    return torch.bfloat16 if dtype.itemsize == 1 else dtype


def _measured(kernels: Any, w: Tensor, bits: tuple[int, ...]) -> Found | None:
    w = in_order_of_memory(w).contiguous().view(-1).to(_held(w.dtype))
    seen = _both_passes(kernels, w, bits, None)
    if not seen.n:
        return Found(seen.nan, seen.inf, None, None)
    if math.isinf(seen.origin) or abs(math.frexp(max(-seen.a, seen.b))[1]) > 200:
        return None
    moments = seen.moments()
    if abs(moments.mean - seen.origin) > FAR * moments.std:
        number = np.float64 if w.dtype == torch.float64 else np.float32
        origin = min(max(float(number(moments.mean)), seen.a), seen.b)
        seen = _both_passes(kernels, w, bits, origin)
        moments = seen.moments()
    codes = constant(moments, len(bits)) if seen.a == seen.b else seen.codes()
    return Found(seen.nan, seen.inf, moments, codes)


@dataclass(frozen=True)
class _Seen:
    """What both passes found, without the elements that stood for others."""

    n: int
    nan: int
    inf: int
    zeros: int
    outside: tuple[int, ...]
    counts: NDArray[np.int64]
    """[widths, 256]"""
    bits: tuple[int, ...]
    errors: NDArray[np.float64]
    """[widths]"""
    origin: float
    a: float
    b: float
    sums: list[float]

    def moments(self) -> Moments:
        return central(self.n, self.a, self.b, self.origin, self.sums)

    def codes(self) -> Codes:
        return Codes(
            counts=tuple(
                counts[: 2**width] for counts, width in zip(self.counts, self.bits, strict=True)
            ),
            errors=tuple(self.errors.tolist()),
            zeros=self.zeros,
            outside=self.outside,
        )


def _both_passes(kernels: Any, w: Tensor, bits: tuple[int, ...], origin: float | None) -> _Seen:
    """Of a flat tensor, about ``origin`` or the median of a sample."""
    n, widths, tiles = w.numel(), len(bits), w.numel() // TILE + 1
    most = PROGRAMS * _processors(w.device)
    programs = min(most, tiles)
    # Integers and, behind them, float64 numbers, fetched as one.
    whole, numbers = 6 + 256 * widths, 10 + widths * programs
    memory = torch.zeros(whole + numbers, dtype=torch.int64, device=w.device)
    figures = memory[whole:].view(torch.float64)
    partial = torch.empty(6 * programs, dtype=torch.float64, device=w.device)
    if origin is not None:
        figures[0] = origin
    of: dict[str, Any] = {
        "number": kernels.tl.float64 if w.dtype == torch.float64 else kernels.tl.float32,
        "vector": 1 if w.data_ptr() % 16 else 16 // w.element_size(),
        "tile": TILE,
        "num_warps": WARPS,
        "maxnreg": REGISTERS,
        "enable_fp_fusion": False,
    }
    with torch.cuda.device_of(w):
        kernels.moments[(programs,)](w, n, int(origin is None), memory, figures, partial, **of)
        kernels.rounding[(widths, programs)](
            w,
            n,
            sum(width << 8 * i for i, width in enumerate(bits)),
            *SIGMAS.values(),
            memory,
            memory[6:],
            figures,
            partial,
            programs,
            figures[10:],
            most=1 << (most - 1).bit_length(),  # of every tensor, for it is compiled in
            **of,
        )
    found = memory.cpu().numpy()
    replaced, zeros, *outside, _ = found[:6].tolist()
    counts = found[6:whole].reshape(widths, 256)
    counts[:, 0] -= replaced
    floats = found[whole:].view(np.float64)
    at, a, b, mean, std, *sums = floats[:9].tolist()
    padding = tiles * TILE - n
    lost = replaced - padding
    nan = sum(int(part.isnan().sum()) for part in w.split(PART)) if lost else 0
    return _Seen(
        n=n - lost,
        nan=nan,
        inf=lost - nan,
        zeros=zeros,
        outside=tuple(
            count - replaced * (abs(a - mean) > k * std)
            for count, k in zip(outside, SIGMAS.values(), strict=True)
        ),
        counts=counts,
        bits=bits,
        errors=floats[10:].reshape(widths, programs).sum(axis=1),
        origin=at,
        a=a + 0.0,  # + 0.0 makes -0.0 the number 0
        b=b + 0.0,
        sums=sums,
    )


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
