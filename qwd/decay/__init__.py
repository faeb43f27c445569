"""What a weight decay is: forms, who is decayed, how much it will do, and proof that it does.

>>> groups = qwd.decay.param_groups(model, wd=1e-4)
>>> optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
>>> qwd.decay.attach(optimizer, qwd.decay.forms.l2)

===================  =====================================================================
`param_groups`       who is decayed, and by how much
`forms`              what a decay does to the weights
`schedules`          the coefficient over time
`attach`             a form at work around any optimizer's steps
`audit`              every parameter's decay, verified by a step without gradient
`dose`, `gain`       what a decay will take in all from a weight without gradient
`wd_for`, `unfelt`   the coefficient for a dose; the steps too small to change a weight
`convert`            the coefficient of the same dose elsewhere
===================  =====================================================================
"""

from qwd.decay import forms, schedules
from qwd.decay.attach import Attached, attach
from qwd.decay.audit import audit
from qwd.decay.conventions import CONVENTIONS, convert
from qwd.decay.dose import VISIBLE, dose, gain, unfelt, wd_for
from qwd.decay.findings import Audit, AuditedParameter
from qwd.decay.forms import Form
from qwd.decay.groups import normalisation_parameters, param_groups
from qwd.decay.kinds import KINDS, parameter_kinds
from qwd.decay.schedules import Schedule

__all__ = [
    "CONVENTIONS",
    "KINDS",
    "VISIBLE",
    "Attached",
    "Audit",
    "AuditedParameter",
    "Form",
    "Schedule",
    "attach",
    "audit",
    "convert",
    "dose",
    "forms",
    "gain",
    "normalisation_parameters",
    "param_groups",
    "parameter_kinds",
    "schedules",
    "unfelt",
    "wd_for",
]
