"""How much faster int8 is than float32 on this processor.

    python -m benchmarks.int8_latency
    python -m benchmarks.int8_latency --model resnet20 --image-size 32 --batch-size 128

One network with initial weights, which are as fast as trained ones, in float32 and in int8 through
torch.ao and ONNX Runtime. All take turns in one process; ratios are taken within a repetition, and
printed with their quartiles: how many times as fast as float32 in torch.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qwd.export.timing import benchmark
from qwd.quantize.backend import quantize
from qwd.quantize.folding import deploy
from qwd.quantize.onnx_graph import exported
from qwd.quantize.onnx_session import OnnxNetwork
from qwd.quantize.schemes import parse_scheme
from qwd.train.models import build

SCHEMES = ("ao-static", "ao-default", "onnx-static", "symmetric-channel-w8-a8@onnx")
FLOAT = "float32, torch"
VNNI = ("avx512_vnni", "avx_vnni")


def main(arguments: Sequence[str]) -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", default="torchvision:resnet18")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    size = asked.image_size
    network = deploy(build(asked.model, in_channels=3, image_size=size, num_classes=10)).module
    images = torch.randn(asked.batch_size, 3, size, size)
    with torch.inference_mode():
        timed = benchmark(_contestants(network, images), FLOAT, repetitions=asked.repetitions)
    has = ", ".join(name for name in VNNI if name in _flags()) or "no VNNI"
    print(
        f"{asked.model}, {size} px, batch {asked.batch_size}, {asked.threads} thread(s), {has}, "
        f"{asked.repetitions} interleaved repetitions"
    )
    print(f"{'':<38} {'median ms':>9}  times as fast as {FLOAT}, quartiles")
    for found in timed:
        fast = [1 / r for r in (found.ratio.median, found.ratio.high, found.ratio.low)]
        print(
            f"{found.name:<38} {1000 * found.seconds.median:>9.1f}  "
            f"{fast[0]:.2f} ({fast[1]:.2f} to {fast[2]:.2f})"
        )


def _contestants(network: nn.Module, images: Tensor) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    float_onnx = OnnxNetwork(exported(network, images).SerializeToString())
    runs: dict[str, Callable[[], Any]] = {
        FLOAT: lambda: network(images),
        "float32, ONNX Runtime": lambda: float_onnx(images),
    }
    for name in SCHEMES:
        made = quantize(network, parse_scheme(name), [images[:8]])
        engine = made.description.engine
        runs[f"{name}, {engine}"] = lambda made=made: made(images)
    return runs


def _flags() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


if __name__ == "__main__":
    main(sys.argv[1:])
