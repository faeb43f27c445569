"""What quantization does to a network's predictions."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def functional_figures(reference: Tensor, quantized: Tensor, labels: Tensor) -> dict[str, Any]:
    """Accuracy, drop, flips, KL and McNemar's p of quantized against float outputs.

    ``reference`` and ``quantized`` are logits [n, classes], ``labels`` int64 [n]. drop_pp = 100
    (float accuracy - accuracy); flips are inputs whose predicted class changes; kl is the mean of
    sum p log(p / q) over the softmax outputs, in nats, in float64; McNemar's test is exact: the
    inputs that only one of the two classifies rightly are split binomially by 1/2.
    """
    from scipy.stats import binomtest  # a second to load, and reports of weights do without

    right, right_quantized = (o.argmax(dim=1) == labels for o in (reference, quantized))
    flips = int((reference.argmax(dim=1) != quantized.argmax(dim=1)).sum())
    lost = int((right & ~right_quantized).sum())
    gained = int((~right & right_quantized).sum())
    log_p, log_q = (F.log_softmax(o.double(), dim=1) for o in (reference, quantized))
    kl = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True).item()
    n = len(labels)
    return {
        "accuracy": int(right_quantized.sum()) / n,
        "drop_pp": 100 * (lost - gained) / n,
        "flip_n": flips,
        "flip_rate": flips / n,
        # Rounding may leave a sum of zero terms a hair below zero.
        "kl": max(kl, 0.0),
        "mcnemar_p": binomtest(lost, lost + gained).pvalue if lost + gained else 1.0,
    }


def finite(outputs: Tensor) -> bool:
    """Whether every output is a finite number."""
    return bool(torch.isfinite(outputs).all())
