"""How far backends that know nothing of each other agree on an int8 network.

    python -m benchmarks.backend_agreement runs/A runs/B

For each run: accuracies on its test images in float and under ``ao-static``, ``onnx-static`` and
``simulated-static``, and the share of the images of which two of them predict the same class.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from qwd.quantize.backend import quantize
from qwd.quantize.folding import deploy
from qwd.quantize.schemes import parse_scheme
from qwd.report.accuracies import CALIBRATION_N, calibration_batches
from qwd.report.subject import Subjects
from qwd.train.evaluation import accuracy, logits

BACKENDS = ("ao", "onnx", "simulated")
CPU = torch.device("cpu")


def main(arguments: Sequence[str]) -> None:
    """Evaluate and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("runs", nargs="+", type=Path)
    asked = parser.parse_args(arguments)
    subjects = Subjects({})
    for path in asked.runs:
        subject = subjects.open(path)
        assert subject.model is not None
        assert subject.data is not None
        network, test = deploy(subject.model).module, subject.data.test
        calibration = calibration_batches(subject.data, CALIBRATION_N)
        outputs: dict[str, Tensor] = {"float": logits(subject.model, test, CPU)}
        for backend in BACKENDS:
            made = quantize(network, parse_scheme(f"{backend}-static"), calibration)
            outputs[backend] = logits(made, test, CPU)
        right = (f"{name} {accuracy(each, test.labels):.2%}" for name, each in outputs.items())
        classes = {name: outputs[name].argmax(dim=1) for name in BACKENDS}
        same = (
            f"{one}-{other} {(classes[one] == classes[other]).double().mean():.2%}"
            for one, other in combinations(BACKENDS, 2)
        )
        print(f"{path}: {len(test)} images; {', '.join(right)}; same class {', '.join(same)}")


if __name__ == "__main__":
    main(sys.argv[1:])
