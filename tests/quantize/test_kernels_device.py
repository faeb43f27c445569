"""The kernels of a GPU as machine code of an H100 or H200, which needs no GPU to be made."""

import re
import subprocess
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from qwd.quantize import statistics_device
from qwd.quantize.statistics_device import PROGRAMS, WARPS

triton = pytest.importorskip("triton", reason="needs Triton")

SHARED = 227 * 1024
"""bytes of memory of a multiprocessor"""
REGISTERS = 2**16


CASES = {
    "float32": (torch.zeros(2**21), 2 * [".v4.b32"]),
    "float64": (torch.zeros(2**21).double(), 4 * [".v2.b64"]),
    "bfloat16": (torch.zeros(2**21).bfloat16(), [".v4.b32"]),
    "float16": (torch.zeros(2**21).half(), [".v4.b32"]),
    "not aligned": (torch.zeros(2**21)[1:], 8 * [".b32"]),
}
"""weights, and what a thread reads of a tile"""


class Hopper:
    """What Triton asks a driver before it compiles."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return triton.backends.compiler.GPUTarget("cuda", 90, 32)


class Compiled:
    """A kernel that is compiled as it would be launched, and no more."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.code = kernel, None

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return partial(self.compile, grid)

    def compile(self, grid: tuple[int, ...], *given: Any, **named: Any) -> None:
        self.code = self.kernel.warmup(*given, grid=grid, **named)


@pytest.fixture(scope="module", params=CASES)
def compiled(request, tmp_path_factory):
    """Both kernels for one type of weights."""
    from qwd.quantize import kernels_device as real

    kernels = SimpleNamespace(
        tl=real.tl, moments=Compiled(real.moments), rounding=Compiled(real.rounding)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        patch.setattr(triton.runtime.driver, "_active", Hopper())
        patch.setattr(statistics_device, "_processors", lambda _: 132)
        statistics_device._both_passes(kernels, CASES[request.param][0], (8, 4), None)
    return {"moments": kernels.moments.code, "rounding": kernels.rounding.code}


def test_all_programs_run_at_a_time(compiled, tmp_path):
    """The grid has as many as the multiprocessors hold; nothing is left to memory."""
    for name, kernel in compiled.items():
        binary = tmp_path / name
        binary.write_bytes(kernel.asm["cubin"])
        tool = triton.knobs.nvidia.cuobjdump.path
        said = subprocess.run(
            [tool, "-res-usage", binary], capture_output=True, text=True, check=True
        )
        registers, stack, shared, local = (
            int(re.findall(rf"{what}:(\d+)", said.stdout + said.stderr)[0])
            for what in ("REG", "STACK", "SHARED", "LOCAL")
        )
        assert (stack, local) == (0, 0)
        assert PROGRAMS * 32 * WARPS * -(-registers // 8) * 8 <= REGISTERS
        assert PROGRAMS * (shared + kernel.metadata.shared) <= SHARED


def test_threads_read_16_bytes_where_they_can_and_wait_for_nobody(compiled, request):
    for kernel in compiled.values():
        (tile,) = (part for part in loops(kernel.asm["ptx"]) if "ld.global" in part)
        loads = re.findall(r"ld\.global\S*?((?:\.v\d)?\.b\d+)\s", tile)
        assert loads == CASES[request.node.callspec.params["compiled"]][1]
        assert not re.search("bar|shfl|atom", tile)


def loops(ptx: str) -> list[str]:
    """From every label to a jump back to it."""
    found = []
    for label in re.finditer(r"^(\$L__\w+):", ptx, re.MULTILINE):
        rest = ptx[label.end() :]
        back = re.search(rf"bra(\.uni)?\s+{re.escape(label[1])};", rest)
        found += [rest[: back.start()]] if back else []
    return found


def test_the_counters_are_made_once(compiled):
    """Two of them would be two tables."""
    assert compiled["rounding"].asm["ptx"].count(".b8 counters[") == 1
