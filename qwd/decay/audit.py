"""Proof of a decay: one step without gradient, on a copy, against each form's own formula."""

import copy
import dataclasses
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from qwd.decay.attach import Attached, attach, attached_to, peak_rate
from qwd.decay.forms import Form, decoupled, independent, l2
from qwd.decay.kinds import parameter_kinds
from qwd.errors import UsageError, VerificationError, reason

UNKNOWN = "unknown"
TOLERANCE = 4.0
"""units in the last place that a step's own rounding may make"""
NOTICEABLE = 0.1
"""relative difference of what a step takes from what it should take"""

Group = dict[str, Any]


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
        if group is not None:
            facts = probe.judge(parameter, group)
        else:
            facts = _Facts(None, 0.0, None, None, None, None)
            if parameter.requires_grad:
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
        self.stepped = _stepped(optimizer, lambda w, group: torch.zeros_like(w), form=form)
        self._on_penalty: dict[str, dict[int, Tensor]] = {}
        self.form = self._known_form()

    def judge(self, w: Tensor, group: Group) -> _Facts:
        """What the step did to one parameter, and whether that is its form's doing."""
        lr, after, wd = peak_rate(group), self.stepped[id(w)], self.coefficient(group)
        lost = _lost(w.detach(), after)
        if not wd:
            if _same_bits(w, after):
                return _Facts(None, 0.0, lr, lost, 0.0)
            failure = "not decayed, yet a step without gradient changes it"
            return _Facts(None, 0.0, lr, lost, None, failure)
        if self.form is None:
            unknown = "the optimizer decays it in a form that is not known here"
            return _Facts(UNKNOWN, wd, lr, lost, None, warning=unknown)
        expected = self._expected(self.form, w, group)
        ulps, due = _ulps(w, after, expected), _lost(w.detach(), expected)
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
        known = [l2] if isinstance(self.optimizer, SGD) else [decoupled, l2, independent]
        decayed = [
            (w, g) for g in self.optimizer.param_groups for w in g["params"] if self.coefficient(g)
        ]

        def distance(form: Form) -> float:
            return max(
                _ulps(w, self.stepped[id(w)], self._expected(form, w, g)) for w, g in decayed
            )

        nearest = min(known, key=distance) if decayed else None
        return nearest if nearest and distance(nearest) <= TOLERANCE else None

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

            self._on_penalty[form.name] = _stepped(self.optimizer, penalty, without_decay=True)
        return self._on_penalty[form.name][id(w)].double()


def _stepped(
    optimizer: Optimizer,
    gradient: Callable[[Tensor, Group], Tensor],
    *,
    form: Form | None = None,
    without_decay: bool = False,
) -> dict[int, Tensor]:
    """Each parameter, by the id of the live one, after a first step on copies of all."""
    copies: dict[int, Any] = {}
    groups = []
    for group in optimizer.param_groups:
        for p in group["params"]:
            copies[id(p)] = nn.Parameter(p.detach().clone(), p.requires_grad)
            copies[id(p)].grad = gradient(p.detach(), group)
        entries = {k: copy.deepcopy(v) for k, v in group.items() if not k.startswith("param")}
        rate = entries["lr"]
        peak = peak_rate(group)
        entries["lr"] = rate.fill_(peak) if isinstance(rate, Tensor) else peak
        if without_decay and "weight_decay" in entries:
            entries["weight_decay"] = 0.0
        groups.append({"params": [copies[id(p)] for p in group["params"]], **entries})
    clone = _fresh(optimizer, groups, copies)
    if form is not None:
        attach(clone, form)
    closure = signature(type(optimizer).step).parameters.get("closure")
    needed = closure is not None and closure.default is Parameter.empty
    try:
        with torch.random.fork_rng(devices=[]):
            clone.step(*[lambda: torch.zeros(())] if needed else [])
    except Exception as error:  # of a class that anyone may have written
        raise VerificationError(
            f"{type(optimizer).__name__} cannot take a step without gradient: {reason(error)}"
        ) from error
    return {place: parameter.detach() for place, parameter in copies.items()}


def _fresh(optimizer: Optimizer, groups: list[Group], copies: dict[int, Any]) -> Any:
    """An optimizer like the given one, for other parameters, that has taken no step."""
    made = type(optimizer)
    takes = signature(made).parameters
    try:
        return made(groups, **{k: v for k, v in optimizer.defaults.items() if k in takes})
    except Exception:
        # Of a class with arguments of its own: as torch unpickles one, but without its state.
        clone: Any = object.__new__(made)
        fresh = {"defaults": optimizer.defaults, "state": defaultdict(dict), "param_groups": groups}
        clone.__setstate__(fresh)
        for name, value in vars(optimizer).items():
            # `step` is what a learning-rate scheduler has bound to the live optimizer.
            if name not in vars(clone) and name != "step":
                setattr(clone, name, copy.deepcopy(value, dict(copies)))
        return clone


def _lost(w: Tensor, after: Tensor) -> float | None:
    before, exact = w.double().flatten(), after.double().flatten()
    square = float(before @ before)
    return float(before @ (before - exact)) / square if square else None


def _ulps(w: Tensor, after: Tensor, expected: Tensor) -> float:
    """Largest |after - expected|, in units in the last place of the largest number in the step."""
    limits, before = torch.finfo(w.dtype), w.detach().double()
    numbers = torch.stack([before, expected, expected - before])
    _, exponent = torch.frexp(numbers.abs().amax(dim=0))
    unit = limits.eps * torch.exp2(exponent.double() - 1)
    unit = unit.clamp(min=limits.smallest_normal * limits.eps)
    distance = ((after.double() - expected).abs() / unit)[expected.isfinite()]
    return float(distance.max()) if distance.numel() else 0.0


def _same_bits(w: Tensor, after: Tensor) -> bool:
    bits = [t.detach().flatten().contiguous().view(torch.uint8) for t in (w, after)]
    return torch.equal(*bits)
