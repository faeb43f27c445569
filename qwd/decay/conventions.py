"""The same dose elsewhere: what other tools call a weight decay of so much."""

from collections.abc import Sequence
from dataclasses import dataclass

from qwd.decay import forms
from qwd.decay.dose import wd_for
from qwd.decay.forms import Form
from qwd.decay.schedules import Schedule, constant, proportional


@dataclass(frozen=True)
class Convention:
    """How a tool reads its coefficient: as a form with a schedule, times ``factor``."""

    form: Form
    name: str
    """qwd's options for it"""
    schedule: Schedule = constant
    factor: float = 1.0
    """the tool's coefficient over that of the form"""


_L2, _DECOUPLED, _INDEPENDENT = (
    Convention(forms.l2, "l2"),
    Convention(forms.decoupled, "decoupled"),
    Convention(forms.independent, "independent"),
)
_FOLLOWING = Convention(forms.independent, "independent, proportional", proportional)
_PENALTY = Convention(forms.l2, "l2", factor=0.5)

CONVENTIONS: dict[str, Convention] = {
    "qwd l2": _L2,
    "qwd decoupled": _DECOUPLED,
    "qwd independent": _INDEPENDENT,
    "qwd independent, proportional": _FOLLOWING,
    "penalty lambda * |w|^2 in the loss": _PENALTY,
    "torch.optim.SGD": _L2,
    "torch.optim.AdamW": _DECOUPLED,
    "timm sgd": _L2,
    "timm sgdw, adamw": _DECOUPLED,
    "transformers adamw_torch": _DECOUPLED,
    "fastai wd": _DECOUPLED,
    "fastai wd, decouple_wd=False": _L2,
    "optax.add_decayed_weights, then sgd": _L2,
    "optax.adamw": _DECOUPLED,
    "pytorch_optimizer weight_decouple": _DECOUPLED,
    "pytorch_optimizer fixed_decay": _INDEPENDENT,
    "Composer DecoupledSGDW, DecoupledAdamW": _FOLLOWING,
    "Keras weight_decay": _DECOUPLED,
    "Keras regularizers.L2": _PENALTY,
    "Caffe weight_decay": _L2,
}
"""By the tool and its argument. Each follows from the tool's documented update."""


def convert(
    amount: float, to: str, rates: Sequence[float], *, gain: float | None = 1.0
) -> float | None:
    """The coefficient that gives the dose ``amount`` under another tool's convention.

    ``rates`` are the learning rates of that training's steps; ``gain`` is what its momentum makes
    of a constant gradient, see `qwd.decay.gain`. None where that convention has no dose there.
    ``amount`` comes from `qwd.decay.dose`.
    """
    convention = CONVENTIONS[to]
    wd = wd_for(amount, convention.form, rates, gain, schedule=convention.schedule)
    return None if wd is None else wd * convention.factor
