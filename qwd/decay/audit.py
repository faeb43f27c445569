"""Proof of a decay: one step without gradient, on a copy, against each form's own formula."""

from collections import defaultdict
from collections.abc import Iterator

from torch import nn
from torch.optim import Optimizer

from qwd.decay.attach import Attached, attached_to
from qwd.decay.findings import Audit, AuditedParameter
from qwd.decay.judge import Facts, Judge
from qwd.decay.kinds import parameter_kinds
from qwd.errors import UsageError

LATE = "in a group without 'decay' that was added after the decay was attached: not decayed"


def audit(model: nn.Module, optimizer: Optimizer) -> Audit:
    """What ``optimizer`` decays of ``model`` by how much, verified by a step without gradient.

    On copies of the parameters, with fresh optimizer state, peak rates and zero (not None)
    gradients, one step must be the form's own: a factor 1 - lr * wd for ``decoupled`` and for
    ``l2`` under SGD (1 - lr * wd * (1 + mu) under Nesterov), 1 - wd for ``independent``, the
    optimizer's own step on the penalty's gradient for ``l2`` and ``l1`` under another one, all in
    float64. Parameters that are not decayed must stay bitwise the same, or within a unit in the
    last place, with a warning. Decay that is the optimizer's own (``weight_decay``) is recognised
    among the same forms. ``optimizer`` and ``model`` are not touched.

    What cannot be judged is a warning, with ``ulps`` None: an optimizer that wraps another one, a
    step that was replaced by one that refers to live objects, step hooks, coefficients too small to
    show in a single step.

    Raises UsageError where the optimizer has none of the model's parameters, VerificationError
    where it cannot take a step.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    places = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    if not names.keys() & places.keys():
        raise UsageError("the optimizer has none of the model's parameters: build it from them")
    attached = attached_to(optimizer)
    judge = Judge(optimizer, attached)
    kinds = parameter_kinds(model)
    late = {id(g) for g in optimizer.param_groups[attached.groups :]} if attached else set()
    audited = []
    failures: dict[str, list[str]] = defaultdict(list)
    warnings: dict[str, list[str]] = defaultdict(list)
    for text in _about(optimizer, attached, judge):
        warnings[text].append(type(optimizer).__name__)
    for parameter in model.parameters():
        name, group = names[id(parameter)], places.get(id(parameter))
        if group is not None and parameter.requires_grad:
            facts = judge.judge(parameter, group)
            if id(group) in late and "decay" not in group:
                warnings[LATE].append(name)
        else:
            facts = Facts(None, 0.0, None, None, None, None)
            if group is not None and judge.coefficient(group):
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
    asked = max((judge.coefficient(group) for group in optimizer.param_groups), default=0.0)
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


def _about(optimizer: Optimizer, attached: Attached | None, judge: Judge) -> Iterator[str]:
    """What keeps the audit, or the decay, from being what it looks like."""
    if judge.reason is not None:
        yield f"its decay cannot be audited: {judge.reason}"
    for text in judge.lacks:
        yield f"{text}: the audit is of a step without it"
    hooks = [*optimizer._optimizer_step_pre_hooks.values()]
    hooks += optimizer._optimizer_step_post_hooks.values()
    foreign = [h for h in hooks if not isinstance(getattr(h, "__self__", None), Attached)]
    if foreign:
        names = ", ".join(getattr(h, "__qualname__", type(h).__name__) for h in foreign)
        yield f"the audit is of a step without its step hooks ({names})"
    default = optimizer.defaults.get("weight_decay")
    if attached is None and default and not any(map(judge.coefficient, optimizer.param_groups)):
        yield f"a weight_decay of {default:g} was given, and every group has one of 0"
