"""How fast batches come, and what share of a training step they take.

    python -m benchmarks.input_pipeline --data imagefolder:DIR

Two ways to the same augmented, normalised batches of DIR/train take turns in one process, so that
a busy machine slows both: qwd's (bytes decoded once, augmentation by batch) and torchvision's
(ImageFolder, RandomCrop, RandomHorizontalFlip, ToTensor, Normalize, a DataLoader of two workers).
Each is measured alone, in images per second, and as the data time of ResNet-20's training steps.
Every figure is the median over the rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler

from qwd.train import models
from qwd.train.data import Data, augmentation, load
from qwd.train.devices import device_called
from qwd.train.vision import datasets, transforms

Batches = Iterator[tuple[Tensor, Tensor]]
WORKERS = 2


@dataclass
class Pipeline:
    """One way to batches, and what was measured of it, a figure per round."""

    epoch: Callable[[int], Batches]
    """this many batches"""
    rates: list[float] = field(default_factory=list)
    """images per second"""
    shares: list[float] = field(default_factory=list)
    """data time / step time"""


def ours(data: Data, batch_size: int, device: torch.device) -> Pipeline:
    """qwd's batches of the training split."""
    generator = torch.Generator().manual_seed(0)

    def epoch(n: int) -> Batches:
        order = torch.randint(len(data.train), (n * batch_size,), generator=generator)
        crops = augmentation("crop-flip")
        return data.train.batches(
            order, batch_size, device=device, augment=crops, generator=generator
        )

    return Pipeline(epoch)


def torchvisions(data: Data, folder: str, batch_size: int, device: torch.device) -> Pipeline:
    """torchvision's customary batches of the same images."""
    steps = [
        transforms.RandomCrop(data.image_size, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(data.mean, data.std),
    ]
    images = datasets.ImageFolder(f"{folder}/train", transforms.Compose(steps))

    def epoch(n: int) -> Batches:
        # Workers start within the epoch, as they do in training.
        sampler = RandomSampler(images, replacement=True, num_samples=n * batch_size)
        loader = DataLoader(images, batch_size, sampler=sampler, num_workers=WORKERS)
        for x, y in loader:
            yield x.to(device), y.to(device)

    return Pipeline(epoch)


def now(device: torch.device) -> float:
    """The time in seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measure_rate(pipeline: Pipeline, n: int, device: torch.device) -> float:
    """Images per second of ``n`` batches that nobody uses."""
    start = now(device)
    images = sum(len(y) for _, y in pipeline.epoch(n))
    return images / (now(device) - start)


def measure_share(pipeline: Pipeline, n: int, model: nn.Module, device: torch.device) -> float:
    """Time spent waiting for batches / time of ``n`` training steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    waited = 0.0
    start = last = now(device)
    for x, y in pipeline.epoch(n):
        waited += now(device) - last
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        last = now(device)
    return waited / (last - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the input pipeline.")
    parser.add_argument("--data", required=True, help="imagefolder:DIR, squares of one size")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=100, help="per round, without a model")
    parser.add_argument("--steps", type=int, default=10, help="training steps per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    device = device_called(options.device)
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    data = load(options.data)
    print(f"loaded {len(data.train)} training images in {time.perf_counter() - start:.2f} s")
    folder = options.data.removeprefix("imagefolder:")
    pipelines = {
        "qwd": ours(data, options.batch_size, device),
        "torchvision": torchvisions(data, folder, options.batch_size, device),
    }
    model = models.build(
        "resnet20",
        in_channels=data.in_channels,
        image_size=data.image_size,
        num_classes=data.num_classes,
    ).to(device)
    for _ in range(options.rounds):
        for pipeline in pipelines.values():
            pipeline.rates.append(measure_rate(pipeline, options.batches, device))
            pipeline.shares.append(measure_share(pipeline, options.steps, model, device))
    print(
        f"batches of {options.batch_size} on {device}, {options.threads} threads, "
        f"medians of {options.rounds} rounds"
    )
    for name, pipeline in pipelines.items():
        rate, share = statistics.median(pipeline.rates), statistics.median(pipeline.shares)
        print(f"{name:<12} {rate:9.0f} images/s, {100 * share:6.2f} % of a ResNet-20 step")
    first, second = pipelines.values()
    ratios = [a / b for a, b in zip(first.rates, second.rates, strict=True)]
    print(
        f"qwd / torchvision: {statistics.median(ratios):.1f} times the images/s "
        f"({min(ratios):.1f} to {max(ratios):.1f} over the rounds)"
    )


if __name__ == "__main__":
    main()
