"""The weights of a report: of a network, or of a checkpoint whose class is not known."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn

from qwd.quantize.arithmetic import arithmetic_dtype
from qwd.quantize.constant_channels import CONSTANT, constant_channels
from qwd.quantize.folding import (
    Deployed,
    is_vector,
    is_weight,
    norm_factor,
    tied,
    times_factor,
    weight_names,
)
from qwd.quantize.kinds import WEIGHTS, model_kinds, output_axes, state_kinds
from qwd.quantize.pairing import BEFORE, Pair, pair_norms
from qwd.report.figures import VectorGroup
from qwd.report.measuring import Measure, WeightOptions, Weights
from qwd.report.remedy_hints import hints

STATED = "; --fold LAYER=NORM states a pair"
PARTS = re.compile(r"(^|[._])weight_g$|(^|\.)parametrizations\.")
"""tensors of which a network computes a weight, as weight norm does from length and direction"""
AVERAGE = re.compile(r"([^.]*_)?(ema|swa)(_[^.]*)?\.")
"""the first part of the name of a weight that is an average of another one"""


def weights_of_state(state: Mapping[str, Tensor], options: WeightOptions) -> Weights:
    """Of a checkpoint without its class: BatchNorms are paired by names, order and shapes.

    Raises UsageError for a pair in ``options.fold`` that does not fit.
    """
    state = {name: t if is_weight(t) else _widened(t) for name, t in state.items()}
    pairing = pair_norms(state, options.fold)
    pairs = {pair.weight: pair for pair in pairing.pairs}
    kinds = state_kinds(
        state, (*(p.norm for p in pairing.pairs), *pairing.unpaired), _transposed(pairs)
    )
    names = _without_vectors(weight_names(state), state)
    made = Weights(vectors=_vectors(state, kinds))

    def factor(name: str) -> Tensor | None:
        pair = pairs.get(name)
        return None if pair is None else _factor(state, pair, options.bn_eps)

    def folded(name: str) -> Tensor | None:
        by = factor(name)
        return None if by is None else times_factor(state[name], by, axis=pairs[name].axis)

    measure = Measure(names, lambda name: state[name], folded, factor, kinds, options, made)
    measure.norms = {name: pair.norm for name, pair in pairs.items()}
    measure.axes = output_axes(state, kinds)
    seen = list(measure.all())
    parts = [name for name in state if PARTS.search(name)]
    if parts:
        made.warnings.append(
            f"{parts[0]}{f' and {len(parts) - 1} more' if parts[1:] else ''}: a part, of which the "
            "network computes a weight (weight norm or another parametrization): what int8 sees "
            "is not in the file, and means over folded weights are left out"
        )
    made.warnings += _averages([each.name for each in seen])
    if not pairing.unpaired and not parts:
        made.as_deployed = [each.deployed for each in seen]
    if pairs:
        made.warnings.append(
            f"eps is not in a checkpoint: {options.bn_eps:g} is assumed for {len(pairs)} "
            "BatchNorms, --bn-eps"
        )
    made.warnings += [
        f"{name} is the tensor of {first} again: it is listed and counted once"
        for name, first in tied({n: t for n, t in state.items() if is_weight(t)}).items()
    ]
    made.warnings += _left_raw(pairing.unpaired)
    made.warnings += _constant(state, pairs.values())
    made.hints = tuple(
        hints(seen, measure.tensor, factor, options.bn_eps, _variances(state, pairs))
    )
    return made


def weights_of_model(model: nn.Module, deployed: Deployed, options: WeightOptions) -> Weights:
    """Of a network whose class is known, beside its deployed form."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    after = {name: p.detach() for name, p in deployed.module.named_parameters()}
    kinds = model_kinds(model) | model_kinds(deployed.module)
    made = Weights(vectors=_vectors(dict(model.state_dict()), kinds))
    names = _without_vectors(weight_names(model), parameters)
    factors: dict[str, Tensor] = {}
    for name, norm in deployed.folded.items():
        found = dict(model.named_modules()).get(norm)
        if isinstance(found, nn.modules.batchnorm._BatchNorm) and found.running_var is not None:
            gamma = None if found.weight is None else found.weight.detach()
            factors[name] = norm_factor(found.running_var, found.eps, gamma)

    def folded(name: str) -> Tensor | None:
        return after[name] if name in deployed.folded else None

    measure = Measure(names, parameters.__getitem__, folded, factors.get, kinds, options, made)
    measure.norms = dict(deployed.folded)
    seen = {each.name: each for each in measure.all()}
    for name, sources in deployed.fused.items():
        if options.wants(name):
            measure.fused(name, sources, after[name])
    if not deployed.warnings:
        found = {k.name: k.figures for k in made.deployed}
        found |= {name: each.deployed for name, each in seen.items()}
        shown = _without_vectors(weight_names(deployed.module), after)
        made.as_deployed = [found[name] for name in shown if options.wants(name)]
    made.warnings += [
        f"{name}: {int(constant.sum())} channels have no variance: folding makes their "
        "weights, which have no effect, the largest of the tensor"
        for name, constant in constant_channels(model).items()
    ]
    made.hints = tuple(hints(list(seen.values()), measure.tensor, factors.get, None, {}))
    return made


def _factor(state: Mapping[str, Tensor], pair: Pair, eps: float) -> Tensor:
    prefix = f"{pair.norm}." if pair.norm else ""
    return norm_factor(state[f"{prefix}running_var"], eps, state.get(f"{prefix}weight"))


def _variances(state: Mapping[str, Tensor], pairs: Mapping[str, Pair]) -> dict[str, float]:
    """Median running variance behind each weight."""
    medians = {}
    for name, pair in pairs.items():
        variance = state[f"{pair.norm}.running_var" if pair.norm else "running_var"]
        medians[name] = float(variance.double().median()) if len(variance) else float("nan")
    return medians


def _without_vectors(names: Iterable[str], tensors: Mapping[str, Tensor]) -> list[str]:
    return [name for name in names if not is_vector(name, tensors[name])]


def _widened(vector: Tensor) -> Tensor:
    """As float32 what is shorter, which torch does not compare in float8."""
    floating = vector.is_floating_point()
    return vector.to(arithmetic_dtype(vector.dtype)) if floating else vector


def _transposed(pairs: Mapping[str, Pair]) -> list[str]:
    return [name for name, pair in pairs.items() if pair.axis == 1]


def _averages(names: list[str]) -> Iterator[str]:
    """That averages lie beside the weights, under a name of their own."""
    found = [match[0] for name in names if (match := AVERAGE.match(name))]
    if 0 < len(found) < len(names):
        yield (
            f"{len(found)} of {len(names)} weights, under {found[0]}, are averages of weights: "
            f"--filter '^(?!{found[0][:-1]}\\.)' leaves them out of every figure"
        )


def _left_raw(unpaired: Mapping[str, str]) -> Iterator[str]:
    for why, n in Counter(unpaired.values()).most_common(3):
        which = [norm or "(the file itself)" for norm, reason in unpaired.items() if reason == why]
        names = ", ".join(which[:3]) + (f" and {n - 3} more" if n > 3 else "")
        yield f"not folded: {names}: {why}{'' if why == BEFORE else STATED}"
    if unpaired:
        yield (
            f"{len(unpaired)} BatchNorms are in no pair, so what int8 sees of the whole model is "
            "not known: means over folded weights are left out"
        )


def _constant(state: Mapping[str, Tensor], pairs: Iterable[Pair]) -> Iterator[str]:
    for pair in pairs:
        if pair.axis == 1:
            continue
        variance = state[f"{pair.norm}.running_var" if pair.norm else "running_var"]
        still = (variance < CONSTANT).nonzero().flatten()
        weight = state[pair.weight]
        n = sum(bool(weight[channel].double().any()) for channel in still.tolist())
        if n:
            yield (
                f"{pair.weight.removesuffix('.weight')}: {n} channels have no variance: folding "
                "makes their weights, which have no effect, the largest of the tensor"
            )


def _vectors(state: Mapping[str, Tensor], kinds: Mapping[str, str]) -> tuple[VectorGroup, ...]:
    """What is not among the weights, by kind."""
    groups: dict[str, list[int]] = {}
    for name, tensor in state.items():
        if is_vector(name, tensor) and kinds.get(name) is not None:
            groups.setdefault(kinds[name], []).append(tensor.numel())
    order = {kind: place for place, kind in enumerate((*WEIGHTS, "bias", "norm", "statistics"))}
    return tuple(
        VectorGroup(kind=kind, tensors=len(sizes), elements=sum(sizes))
        for kind, sizes in sorted(groups.items(), key=lambda item: order.get(item[0], 99))
    )
