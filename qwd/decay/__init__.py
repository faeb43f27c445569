"""What a weight decay is: forms, who is decayed, and how much it will do.

>>> groups = qwd.decay.param_groups(model, wd=1e-4)
>>> optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
>>> qwd.decay.attach(optimizer, qwd.decay.forms.l2)
"""

from qwd.decay import forms
from qwd.decay.dose import VISIBLE, dose
from qwd.decay.forms import Form, attach
from qwd.decay.groups import normalisation_parameters, param_groups

__all__ = [
    "VISIBLE",
    "Form",
    "attach",
    "dose",
    "forms",
    "normalisation_parameters",
    "param_groups",
]
