"""Counters in the memory of a multiprocessor, which Triton has no word for, in PTX.

`tl.histogram` counts with votes of a warp, eight population counts an element for 256 codes. An
addition in shared memory is one instruction, and waits for nobody where every lane of a warp has
counters of its own, in a memory bank of its own: `REPLICAS` of them side by side in a row.
"""

from typing import Any

import triton
import triton.language as tl

CODES = tl.constexpr(256)
REPLICAS = tl.constexpr(32)
RULES = tl.constexpr(4)
"""rows behind those of the codes: three are used, tl.arange wants a power of two"""

_CREATE: Any = tl.constexpr("{ .shared .align 128 .b8 counters[33280]; mov.u32 $0, counters; }")
_CLEAR: Any = tl.constexpr("st.shared.u32 [$1], 0; mov.u32 $0, 0;")
_READ: Any = tl.constexpr("ld.shared.u32 $0, [$1];")
_COUNT: Any = tl.constexpr("red.shared.add.u32 [$1], 1; mov.u32 $0, 0;")
_COUNT_BEYOND: Any = tl.constexpr("""{
    .reg .pred beyond;
    setp.gt.f64 beyond, $2, $3;
    @!beyond bra done;
    red.shared.add.u32 [$1], 1;
    setp.gt.f64 beyond, $2, $4;
    @beyond red.shared.add.u32 [$1 + 128], 1;
    setp.gt.f64 beyond, $2, $5;
    @beyond red.shared.add.u32 [$1 + 256], 1;
done:
    mov.u32 $0, 0;
}""")


@triton.jit
def create():
    """The program's table, int32 [CODES + RULES, REPLICAS], all 0; once in a kernel."""
    table = tl.inline_asm_elementwise(_CREATE, "=r,r", [0], tl.int32, is_pure=False, pack=1)
    codes = table + 4 * tl.arange(0, CODES * REPLICAS)
    rules = table + 4 * (CODES * REPLICAS + tl.arange(0, RULES * REPLICAS))
    tl.inline_asm_elementwise(_CLEAR, "=r,r", [codes], tl.int32, is_pure=False, pack=1)
    tl.inline_asm_elementwise(_CLEAR, "=r,r", [rules], tl.int32, is_pure=False, pack=1)
    tl.debug_barrier()
    return table


@triton.jit
def count(table, code, replica):
    """Add 1 to the rows of some codes, int32 of 0 to 255."""
    place = table + (code * (4 * REPLICAS) | replica * 4)
    tl.inline_asm_elementwise(_COUNT, "=r,r", [place], tl.int32, is_pure=False, pack=1)


@triton.jit
def count_beyond(table, distance, near, far, farther, replica):
    """Add 1 to the row of every rule whose limit a distance is above; limits ascend.

    Few are above the first, so that the others are behind a branch.
    """
    place = table + (4 * CODES * REPLICAS + replica * 4)
    tl.inline_asm_elementwise(
        _COUNT_BEYOND,
        "=r,r,d,d,d,d",
        [place, distance, near, far, farther],
        tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def total(table):
    """Elements per code, int32 [CODES], and per rule, [RULES]."""
    tl.debug_barrier()
    codes = table + 4 * tl.arange(0, CODES * REPLICAS)
    rules = table + 4 * (CODES * REPLICAS + tl.arange(0, RULES * REPLICAS))
    codes = tl.inline_asm_elementwise(_READ, "=r,r", [codes], tl.int32, is_pure=False, pack=1)
    rules = tl.inline_asm_elementwise(_READ, "=r,r", [rules], tl.int32, is_pure=False, pack=1)
    codes = tl.sum(tl.reshape(codes, [CODES, REPLICAS]), 1)
    return codes, tl.sum(tl.reshape(rules, [RULES, REPLICAS]), 1)
