"""How much a decay will do, before any training."""

import math
from collections.abc import Iterable

from qwd.decay.forms import Form

VISIBLE = 0.05
"""Below this dose a weight without gradient shrinks by less than 5 %: no visible effect."""


def dose(form: Form, wd: float, rates: Iterable[float], gain: float | None) -> float | None:
    """D, the sum over steps of what the form takes from a weight without gradient.

    ``l2`` under SGD: D = sum wd * lr_t * gain with gain = (1 - dampening) / (1 - momentum);
    ``decoupled``: D = sum wd * lr_t. Such a weight shrinks by 1 - exp(-D). ``rates`` are the
    learning rates of all steps; ``gain`` is None for adaptive optimizers, under which ``l2`` has
    no dose (the penalty is divided by the gradient's own scale): the result is None then.
    """
    steps = [form.dose(wd, rate, gain) for rate in rates]
    return None if None in steps else math.fsum(step for step in steps if step is not None)
