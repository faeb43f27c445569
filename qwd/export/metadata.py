"""What a deployer needs who has nothing but the file."""

import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

from qwd.export.formats import MARK, VERSION
from qwd.quantize.backend import Description
from qwd.quantize.schemes import Scheme
from qwd.report.subject import Subject
from qwd.train.data import Data

FORMULAS = {
    "minmax": "w = a + q * scale",
    "affine": "w = (q - zero_point) * scale",
    "symmetric": "w = q * scale",
    "pow2": "w = q * scale",
}


def metadata(
    subject: Subject,
    data: Data,
    scheme: Scheme,
    description: Description,
    *,
    model: str,
    float_accuracy: float,
    accuracy: float,
    scales: Mapping[str, Any],
) -> dict[str, Any]:
    """How the network was trained, quantized and measured, and what its input is.

    Accuracies are fractions of the test images. ``mean`` and ``std`` are per channel, on the scale
    0 to 1 of the pixels: x = (pixel - mean) / std; None where the data came normalised.
    ``scales`` are as `qwd.export.program.Program.grids` gives them. A fact that is not known is
    None: of a checkpoint from elsewhere, how it was trained.
    """
    config = subject.config
    return {
        "qwd_version": importlib.metadata.version("qwd"),
        "model": model,
        "scheme": f"{scheme.full_name}@{scheme.backend}",
        "formula": FORMULAS[scheme.kind],
        "activation_bits": description.activation_bits,
        "left_float": list(description.left_float),
        "wd": config.wd if config else None,
        "form": config.form if config else None,
        "dose": subject.dose,
        "seed": config.seed if config else None,
        "data": data.name,
        "data_split": data.test_name,
        "data_n": len(data.test),
        "data_sha256": data.test.sha256(),
        "float_accuracy": float_accuracy,
        "accuracy": accuracy,
        "input_shape": ["N", data.in_channels, data.image_size, data.image_size],
        "mean": list(data.mean) or None,
        "std": list(data.std) or None,
        "classes": list(data.classes),
        "scales": dict(scales),
    }


def as_texts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Texts as they are, everything else as JSON: what metadata of files can hold; and the mark."""
    return {MARK: VERSION} | {
        k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()
    }
