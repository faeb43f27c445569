"""What an attached decay costs of a training step.

    python -m benchmarks.decay_cost --model resnet20 --batch-size 128

Steps of one network on random images with and without the decay take turns in one process, so
that a busy machine slows both. The figure is the median over all pairs of the relative difference;
``of the optimizer`` is the same for the optimizer's step alone, beside torch's own weight_decay.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from qwd import decay
from qwd.registry import FORMS
from qwd.train import models
from qwd.train.devices import device_called

LR, WD, MOMENTUM = 0.01, 1e-4, 0.9


class Trainer:
    """A network and its optimizer; ``form`` None is no decay, ``torch`` torch's own."""

    def __init__(self, name: str, size: int, form: str | None, device: torch.device):
        torch.manual_seed(0)
        self.device = device
        self.model = models.build(name, in_channels=3, image_size=size, num_classes=10).to(device)
        groups = decay.param_groups(self.model, WD)
        if form == "torch":
            groups = [{"params": g["params"], "weight_decay": g["decay"]} for g in groups]
        self.optimizer = torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM)
        if form not in (None, "torch"):
            base, _, option = form.partition(" ")
            found = FORMS.get(base)
            decay.attach(self.optimizer, found.options[option] if option else found)

    def gradients(self, images: Tensor, labels: Tensor) -> None:
        """Forward and backward."""
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(images), labels).backward()

    def timed(self, work: Callable[[], object]) -> float:
        """Seconds."""
        self.wait()
        started = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - started

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The cost of an attached decay")
    parser.add_argument("--model", default="small_cnn")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = device_called(options.device)
    generator = torch.Generator().manual_seed(0)
    shape = (options.batch_size, 3, options.image_size, options.image_size)
    images = torch.randn(shape, generator=generator).to(device)
    labels = torch.randint(10, shape[:1], generator=generator).to(device)

    print(f"{options.model}, batch {options.batch_size}, {device}, {options.threads} threads")
    print(f"{'decay':<20}  of a step  of the optimizer's part")
    names = [*FORMS.names(), "decoupled cautious", "l1 proximal", "torch"]
    for name in names:
        without, under = (
            Trainer(options.model, options.image_size, form, device) for form in (None, name)
        )
        steps, parts = [], []
        for pair in range(options.pairs + 3):
            order = (without, under) if pair % 2 else (under, without)
            spent: dict[Trainer, tuple[float, float]] = {}
            for trainer in order:
                first = trainer.timed(lambda t=trainer: t.gradients(images, labels))
                spent[trainer] = (first, trainer.timed(trainer.optimizer.step))
            if pair >= 3:  # the first ones allocate memory
                base, with_decay = spent[without], spent[under]
                # Both forward and backward passes are the same work: noise alone.
                step = (sum(base) + sum(with_decay) - base[1] - with_decay[1]) / 2
                extra = with_decay[1] - base[1]
                steps.append(extra / (step + base[1]))
                parts.append(extra / base[1])
        print(f"{name:<20}  {statistics.median(steps):>8.2%}  {statistics.median(parts):>8.1%}")


if __name__ == "__main__":
    main()
