"""Proof of a decay: one step without gradient, on a copy, against each form's own formula."""

import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from qwd.decay.attach import Attached, attached_to, peak_rate
from qwd.decay.forms import Form, decoupled, independent, l2
from qwd.decay.kinds import parameter_kinds
from qwd.decay.probe import Group, lost_share, same_bits, stepped, ulps_apart
from qwd.errors import UsageError, VerificationError

UNKNOWN = "unknown"
TOLERANCE = 4.0
"""units in the last place that a step's own rounding may make"""
NOTICEABLE = 0.1
"""relative difference of what a step takes from what it should take"""
MORE_STEPS = 10
"""after a first step that does nothing: some optimizers only gather statistics at first"""


@dataclass(frozen=True, kw_only=True)
class AuditedParameter:
    """What is decayed by how much, and what a step without gradient did to it."""

    name: str
    kind: str
    """see `qwd.decay.KINDS`"""
    shape: tuple[int, ...]
    numel: int
    dtype: str
    form: str | None
    """None: not decayed; ``unknown`` where a decay of the optimizer's own is of no known form"""
    coefficient: float
    """at its peak: before the schedule, after the factor of the parameter"""
    lr: float | None
    """peak rate; None for a parameter that the optimizer does not have"""
    lost: float | None
    """share of the weight that the step takes, w . (w - w') / |w|^2; None for zero weights"""
    ulps: float | None
    """largest distance from the formula in units in the last place; None where there is none"""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The decay of every parameter of a model, and whether the optimizer carries it out."""

    optimizer: str
    parameters: tuple[AuditedParameter, ...]
    failures: tuple[str, ...]
    """where the step was not the form's"""
    warnings: tuple[str, ...]

    @property
    def decayed(self) -> int:
        """Elements under decay."""
        return sum(p.numel for p in self.parameters if p.form is not None)

    @property
    def share(self) -> float:
        """Decayed elements over all of the model's."""
        return self.decayed / max(1, sum(p.numel for p in self.parameters))

    @property
    def ulps(self) -> float:
        """The largest distance of any parameter from its formula, in units in the last place."""
        return max((p.ulps for p in self.parameters if p.ulps is not None), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """The table as JSON holds it, totals first."""
        totals = {"decayed": self.decayed, "share": self.share, "ulps": self.ulps}
        return totals | dataclasses.asdict(self)

    def check(self) -> None:
        """Raise VerificationError where the step was not the form's."""
        if self.failures:
            raise VerificationError(f"the audit of the decay failed: {'; '.join(self.failures)}")

    def __str__(self) -> str:
        width = max([len(p.name) for p in self.parameters], default=0)
        lines = [
            f"{p.name:<{width}}  {p.kind:<9}  {p.numel:>10,}  {p.form or '-':<11}  "
            f"{p.coefficient:<10.4g}  {'-' if p.lost is None else format(p.lost, '.3g'):<10}  "
            f"{'-' if p.ulps is None else format(p.ulps, '.2f')}"
            for p in self.parameters
        ]
        head = (
            f"{'parameter':<{width}}  {'kind':<9}  {'elements':>10}  {'form':<11}  "
            f"{'wd':<10}  {'lost':<10}  ulps"
        )
        verdict = "; ".join(self.failures) or f"verified within {self.ulps:.2f} ulps"
        total = f"{self.decayed:,} elements decayed, {self.share:.1%} of all; {verdict}"
        return "\n".join([head, *lines, total, *(f"warning: {w}" for w in self.warnings)])


def audit(model: nn.Module, optimizer: Optimizer) -> Audit:
    """What ``optimizer`` decays of ``model`` by how much, verified by a step without gradient.

    On copies of the parameters, with fresh optimizer state, peak rates and zero (not None)
    gradients, one step must be the form's own: a factor 1 - lr * wd for ``decoupled`` and for
    ``l2`` under SGD (1 - lr * wd * (1 + mu) under Nesterov), 1 - wd for ``independent``, the
    optimizer's own step on the penalty's gradient for ``l2`` and ``l1`` under another one, all in
    float64. Parameters that are not decayed must stay bitwise the same. Decay that is the
    optimizer's own (``weight_decay``) is recognised among the same forms. ``optimizer`` and
    ``model`` are not touched.

    Raises UsageError where the optimizer has none of the model's parameters, VerificationError
    where it cannot take a step.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    places = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    if not names.keys() & places.keys():
        raise UsageError("the optimizer has none of the model's parameters: build it from them")
    probe = _Probe(optimizer, attached_to(optimizer))
    kinds = parameter_kinds(model)
    audited = []
    failures: dict[str, list[str]] = defaultdict(list)
    warnings: dict[str, list[str]] = defaultdict(list)
    for parameter in model.parameters():
        name, group = names[id(parameter)], places.get(id(parameter))
        if group is not None and parameter.requires_grad:
            facts = probe.judge(parameter, group)
        else:
            facts = _Facts(None, 0.0, None, None, None, None)
            if group is not None and probe.coefficient(group):
                warnings["frozen, so that the decay of its group does not reach it"].append(name)
            elif group is None and parameter.requires_grad:
                warnings["trainable and not in the optimizer"].append(name)
        audited.append(
            AuditedParameter(
                name=name,
                kind=kinds[name],
                shape=tuple(parameter.shape),
                numel=parameter.numel(),
                dtype=str(parameter.dtype).removeprefix("torch."),
                form=facts.form,
                coefficient=facts.coefficient,
                lr=facts.lr,
                lost=facts.lost,
                ulps=facts.ulps,
            )
        )
        if facts.failure:
            failures[facts.failure].append(name)
        if facts.warning:
            warnings[facts.warning].append(name)
    asked = max((probe.coefficient(group) for group in optimizer.param_groups), default=0.0)
    if asked and not any(entry.form for entry in audited):
        failures[f"no parameter of the model is decayed, though a group asks for {asked:g}"] = [
            "all"
        ]
    return Audit(
        optimizer=type(optimizer).__name__,
        parameters=tuple(audited),
        failures=_lines(failures),
        warnings=_lines(warnings),
    )


def _lines(found: dict[str, list[str]]) -> tuple[str, ...]:
    """A line for every finding, with the first of the parameters it is about."""
    return tuple(
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {text}"
        for text, names in found.items()
    )


@dataclass(frozen=True)
class _Facts:
    form: str | None
    coefficient: float
    lr: float | None
    lost: float | None
    ulps: float | None
    failure: str | None = None
    warning: str | None = None


class _Probe:
    """A step without gradient on copies, and what each known form would have done."""

    def __init__(self, optimizer: Optimizer, attached: Attached | None):
        self.optimizer = optimizer
        self.attached = attached
        form = attached.form if attached else None
        self.stepped = stepped(optimizer, _zeros, form=form)
        self._later: dict[int, Tensor] | None = None
        self._on_penalty: dict[str, dict[int, Tensor]] = {}
        self.form = self._known_form()

    def judge(self, w: Tensor, group: Group) -> _Facts:
        """What the step did to one parameter, and whether that is its form's doing."""
        lr, after, wd = peak_rate(group), self.stepped[id(w)], self.coefficient(group)
        lost = lost_share(w.detach(), after)
        if not wd:
            if same_bits(w, after):
                return _Facts(None, 0.0, lr, lost, 0.0)
            failure = "not decayed, yet a step without gradient changes it"
            return _Facts(None, 0.0, lr, lost, None, failure)
        expected = None if self.form is None else self._expected(self.form, w, group)
        due = None if expected is None else lost_share(w.detach(), expected)
        if not lr and lost == 0:
            return _Facts(UNKNOWN, wd, lr, lost, None, warning="a rate of 0 shows no decay")
        if not due and lost == 0 and self._stays(w):
            failure = f"a weight decay of {wd:g} takes nothing in {MORE_STEPS} idle steps"
            return _Facts(None, wd, lr, lost, None, failure)
        if self.form is None or expected is None:
            unknown = "the optimizer decays it in a form that is not known here"
            return _Facts(UNKNOWN, wd, lr, lost, None, warning=unknown)
        ulps = ulps_apart(w, after, expected)
        failure = warning = None
        if ulps > TOLERANCE:
            failure = f"{self.form.name} by {wd:g} is missed by {ulps:.0e} ulps"
        elif lost is not None and due and abs(lost / due - 1) > NOTICEABLE:
            dtype = str(w.dtype).removeprefix("torch.")
            warning = (
                f"{self.form.name} by {wd:g} at a rate of {lr:g} is too small for {dtype} weights: "
                f"by itself a step takes {lost:.2g} in place of {due:.2g} of them"
            )
        return _Facts(self.form.name, wd, lr, lost, ulps, failure, warning)

    def _known_form(self) -> Form | None:
        """The attached form, or that of the optimizer's own decay; None where it is not known."""
        if self.attached:
            return self.attached.form
        decayed = [
            (w, g) for g in self.optimizer.param_groups for w in g["params"] if self.coefficient(g)
        ]
        if not decayed:
            return None

        def expected(form: Form) -> list[Tensor]:
            return [self._expected(form, w, group) for w, group in decayed]

        def distance(form: Form) -> float:
            return max(
                ulps_apart(w, self.stepped[id(w)], e)
                for (w, _), e in zip(decayed, expected(form), strict=True)
            )

        # A first step that does nothing by itself, as some adaptive ones, proves no form.
        known = [l2] if isinstance(self.optimizer, SGD) else [decoupled, l2, independent]
        known = [
            form
            for form in known
            if any(bool((e != w).any()) for (w, _), e in zip(decayed, expected(form), strict=True))
        ]
        nearest = min(known, key=distance, default=None)
        return nearest if nearest and distance(nearest) <= TOLERANCE else None

    def _stays(self, w: Tensor) -> bool:
        """Whether more steps leave a parameter as it is."""
        if self._later is None:
            form = self.attached.form if self.attached else None
            self._later = stepped(self.optimizer, _zeros, form=form, steps=MORE_STEPS)
        return same_bits(w, self._later[id(w)])

    def coefficient(self, group: Group) -> float:
        """What a group is decayed by."""
        if self.attached and not self.attached.form.acts:
            return 0.0
        return float(group.get("decay" if self.attached else "weight_decay") or 0.0)

    def _expected(self, form: Form, w: Tensor, group: Group) -> Tensor:
        """What one step of ``form`` makes of ``w``, float64."""
        exact, wd, lr = w.detach().double(), self.coefficient(group), peak_rate(group)
        if form.gradient is None:
            return form.reference(exact, wd, lr)
        if isinstance(self.optimizer, SGD):
            first_step = 1 + group["momentum"] if group["nesterov"] else 1
            return exact - lr * first_step * form.reference(exact, wd, lr)
        if form.name not in self._on_penalty:

            def penalty(w: Tensor, group: Group) -> Tensor:
                gradient = form.reference(w, self.coefficient(group), 0.0)
                return -gradient if group.get("maximize") else gradient

            self._on_penalty[form.name] = stepped(self.optimizer, penalty, without_decay=True)
        return self._on_penalty[form.name][id(w)].double()


def _zeros(w: Tensor, group: Group) -> Tensor:
    return torch.zeros_like(w)
