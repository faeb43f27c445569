"""A step without gradient on copies, judged against what each known form would have done."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from qwd.decay.attach import OWN_DECAYS, Attached, peak_rate
from qwd.decay.clone import NotCopyableError
from qwd.decay.forms import Form, decoupled, independent, l2
from qwd.decay.probe import Group, lost_share, same_bits, stepped, ulps_apart

UNKNOWN = "unknown"
TOLERANCE = 4.0
"""units in the last place that a step's own rounding may make"""
ROUNDING = 1.0
"""units in the last place by which an optimizer's own arithmetic may move an idle weight"""
NOTICEABLE = 0.1
"""relative difference of what a step takes from what it should take"""
MORE_STEPS = 10
"""after a first step that does nothing: some optimizers only gather statistics at first"""


@dataclass(frozen=True)
class Facts:
    """What an audit says of one parameter; see `qwd.decay.AuditedParameter`."""

    form: str | None
    coefficient: float
    lr: float | None
    lost: float | None
    ulps: float | None
    failure: str | None = None
    warning: str | None = None


class Judge:
    """Takes the step at once; ``reason`` says why it could not, ``lacks`` what it was without.

    Raises VerificationError where the optimizer cannot take a step.
    """

    def __init__(self, optimizer: Optimizer, attached: Attached | None):
        self.optimizer = optimizer
        self.attached = attached
        self.reason: str | None = None
        self.lacks: list[str] = []
        self._later: dict[int, Tensor] | None = None
        self._on_penalty: dict[str, dict[int, Tensor]] = {}
        self._alike = False
        self._form: Form | None = attached.form if attached else None
        try:
            self._stepped, self.lacks = stepped(optimizer, _zeros, form=self._form)
        except NotCopyableError as error:
            self.reason = str(error)
        else:
            self._form = self._form or self._known_form()

    def judge(self, w: Tensor, group: Group) -> Facts:
        """What the step did to one parameter, and whether that is its form's doing."""
        lr, wd, name = peak_rate(group), self.coefficient(group), self._name
        own = [key for key in OWN_DECAYS if self.attached and group.get(key)]
        if own:
            failure = f"decayed by a {own[0]} of {group[own[0]]:g} of the optimizer's own as well"
            return Facts(name if wd else None, wd, lr, None, None, failure)
        if self.reason is not None:
            return Facts(name if wd else None, wd, lr, None, None)
        after = self._stepped[id(w)]
        lost = lost_share(w.detach(), after)
        still = same_bits(w, after)
        if not wd:
            return self._undecayed(w, after, Facts(None, 0.0, lr, lost, 0.0 if still else None))
        if lost is None and w.numel() and still:
            unseen = "all zeros, of which no decay can be seen" if self._form is None else None
            return Facts(name, wd, lr, lost, None, warning=unseen)
        expected = None if self._form is None else self._expected(self._form, w, group)
        due = None if expected is None else lost_share(w.detach(), expected)
        if not lr and lost == 0:
            return Facts(UNKNOWN, wd, lr, lost, None, warning="a rate of 0 shows no decay")
        dtype = str(w.dtype).removeprefix("torch.")
        if not due and lost == 0 and self._stays(w):
            if self._alike or _tiny(w, max(wd, lr * wd)):
                tiny = f"a weight decay of {wd:g} is too small to be judged on {dtype} weights"
                return Facts(name, wd, lr, lost, None, warning=tiny)
            failure = f"a weight decay of {wd:g} takes nothing in {MORE_STEPS} idle steps"
            return Facts(None, wd, lr, lost, None, failure)
        if self._form is None or expected is None:
            unknown = "the optimizer decays it in a form that is not known here"
            return Facts(UNKNOWN, wd, lr, lost, None, warning=unknown)
        ulps = ulps_apart(w, after, expected)
        if ulps > TOLERANCE:
            failure = f"{name} by {wd:g} is missed by {ulps:.0e} ulps"
            return Facts(name, wd, lr, lost, ulps, failure)
        warning = None
        if self._form.gradient is not None and self._scales_gradients and _tiny(w, wd):
            most = 4 * wd / torch.finfo(w.dtype).eps
            warning = (
                f"{name} by {wd:g} cannot be judged without gradients: beside those above "
                f"{most:.0e} times the weight it is lost in {dtype}"
            )
            return Facts(name, wd, lr, lost, None, warning=warning)
        if lost is not None and due and abs(lost / due - 1) > NOTICEABLE:
            warning = (
                f"{name} by {wd:g} at a rate of {lr:g} is too small for {dtype} weights: "
                f"by itself a step takes {lost:.2g} in place of {due:.2g} of them"
            )
        return Facts(name, wd, lr, lost, ulps, warning=warning)

    def coefficient(self, group: Group) -> float:
        """What a group is decayed by."""
        if self.attached and not self.attached.form.acts:
            return 0.0
        return float(group.get("decay" if self.attached else "weight_decay") or 0.0)

    @property
    def _name(self) -> str:
        return UNKNOWN if self._form is None else self._form.name

    @property
    def _scales_gradients(self) -> bool:
        return not isinstance(self.optimizer, SGD)

    def _undecayed(self, w: Tensor, after: Tensor, facts: Facts) -> Facts:
        if facts.ulps is not None:
            return facts
        ulps = ulps_apart(w, after, w.detach().double())
        rounded = ulps <= ROUNDING and bool(after.isfinite().all())
        return replace(
            facts,
            ulps=ulps if rounded else None,
            failure=None if rounded else "not decayed, yet a step without gradient changes it",
            warning="not decayed; a step without gradient rounds it anew" if rounded else None,
        )

    def _known_form(self) -> Form | None:
        """The form of the optimizer's own decay; None where it is not known."""
        decayed = [
            (w, g) for g in self.optimizer.param_groups for w in g["params"] if self.coefficient(g)
        ]
        if not decayed:
            return None

        def expected(form: Form) -> list[Tensor]:
            return [self._expected(form, w, group) for w, group in decayed]

        def distance(form: Form) -> float:
            return max(
                ulps_apart(w, self._stepped[id(w)], e)
                for (w, _), e in zip(decayed, expected(form), strict=True)
            )

        # A first step that does nothing by itself, as some adaptive ones, proves no form.
        known = [decoupled, l2, independent] if self._scales_gradients else [l2]
        known = [
            form
            for form in known
            if any(bool((e != w).any()) for (w, _), e in zip(decayed, expected(form), strict=True))
        ]
        near = {form.name: form for form in known if distance(form) <= TOLERANCE}
        # A step that changes nothing is near to every form that takes next to nothing.
        still = all(same_bits(w, self._stepped[id(w)]) for w, _ in decayed)
        tiny = all(_tiny(w, self.coefficient(group)) for w, group in decayed)
        self._alike = still and self._scales_gradients and (tiny or len(near) > 1)
        return None if self._alike else min(near.values(), key=distance, default=None)

    def _stays(self, w: Tensor) -> bool:
        """Whether more steps leave a parameter as it is."""
        if self._later is None:
            form = self.attached.form if self.attached else None
            self._later, _ = stepped(self.optimizer, _zeros, form=form, steps=MORE_STEPS)
        return same_bits(w, self._later[id(w)])

    def _expected(self, form: Form, w: Tensor, group: Group) -> Tensor:
        """What one step of ``form`` makes of ``w``, float64."""
        exact, wd, lr = w.detach().double(), self.coefficient(group), peak_rate(group)
        if form.gradient is None:
            return form.reference(exact, wd, lr)
        if not self._scales_gradients:
            first_step = 1 + group["momentum"] if group["nesterov"] else 1
            return exact - lr * first_step * form.reference(exact, wd, lr)
        if form.name not in self._on_penalty:

            def penalty(w: Tensor, group: Group) -> Tensor:
                gradient = form.reference(w, self.coefficient(group), 0.0)
                return -gradient if group.get("maximize") else gradient

            after, _ = stepped(self.optimizer, penalty, without_decay=True)
            self._on_penalty[form.name] = after
        return self._on_penalty[form.name][id(w)].double()


def _zeros(w: Tensor, group: Group) -> Tensor:
    return torch.zeros_like(w)


def _tiny(w: Tensor, share: float) -> bool:
    """Whether no weight of that dtype changes where ``share`` of it is taken."""
    return share < torch.finfo(w.dtype).eps / 4
