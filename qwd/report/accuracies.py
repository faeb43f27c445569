"""Accuracy in float and under every scheme, on the test split."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import torch
from torch import Tensor, nn

from qwd.quantize import qat
from qwd.quantize.backend import NotQuantizableError, QuantizedNetwork, quantize
from qwd.quantize.schemes import DEFAULT_SCHEMES, Scheme
from qwd.report.figures import SchemeResult
from qwd.report.function import finite, functional_figures
from qwd.report.subject import Subject
from qwd.train.awareness import qat_scheme
from qwd.train.data import Data
from qwd.train.evaluation import accuracy, logits

CALIBRATION_N = 512
"""Training images that the observers of activations see."""

SAME_CLASS = 0.95
"""of the images, that two backends of one scheme agree on; the built-in networks reach 0.99"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to report: which schemes, on which device, calibrated with how many images."""

    schemes: tuple[Scheme, ...] = DEFAULT_SCHEMES
    calibration_n: int = CALIBRATION_N
    device: torch.device


@dataclass(frozen=True)
class Quantized:
    """A quantized network of a subject."""

    scheme: Scheme
    made: QuantizedNetwork
    sqnr: Mapping[str, float | None] = field(default_factory=dict)
    """of a quantization-aware training, by field of `SchemeResult`"""


def quantized_accuracies(
    subject: Subject, deployed: nn.Module, options: Options, warnings: list[str]
) -> tuple[float | None, dict[str, SchemeResult]]:
    """Float accuracy on the test split, and the result under every scheme that ran.

    A quantization-aware training's own scheme stands first. What could not run, and what backends
    do not agree on, is named in ``warnings``.
    """
    model, data = subject.model, subject.data
    assert model is not None
    assert data is not None
    reference = logits(model.to(options.device), data.test, options.device)
    if not finite(reference):
        warnings.append("the network's outputs are not finite: no accuracy is reported")
        return None, {}
    results: dict[str, SchemeResult] = {}
    classes: dict[str, tuple[str, Tensor]] = {}
    for each in _quantized(subject, deployed.cpu(), options, warnings):
        device = each.made.backend.device or options.device
        outputs = logits(each.made.to(device), data.test, device)
        warnings += each.made.description.warnings
        name = each.scheme.name
        if not finite(outputs):
            warnings.append(f"{name}: no accuracy, the quantized outputs are not finite")
            continue
        results[name] = _result(each, functional_figures(reference, outputs, data.test.labels))
        ran = replace(each.scheme, activation_bits=results[name].activation_bits).full_name
        classes[name] = ran, outputs.argmax(dim=1).cpu()
    warnings += disagreements(classes)
    return accuracy(reference, data.test.labels), results


def disagreements(classes: Mapping[str, tuple[str, Tensor]]) -> Iterator[str]:
    """A line for every two backends that predict too differently with one arithmetic.

    ``classes``: by name of a scheme, what ran (its full name, with the bits that activations really
    had) and the predicted classes [n] of the same images.
    """
    for one, other in combinations(classes, 2):
        (ran, first), (ran_other, second) = classes[one], classes[other]
        share = (first == second).double().mean().item()
        if ran == ran_other and share < SAME_CLASS:
            yield disagreement(one, other, share)


def disagreement(one: str, other: str, share: float) -> str:
    """What to say of two backends that predict the same class for ``share`` of the images."""
    return (
        f"{one} and {other}, one scheme on two backends, predict the same class for {share:.1%} of "
        "the images: find out why before you trust either"
    )


def calibration_batches(data: Data, n: int) -> Sequence[Tensor]:
    """The same ``n`` training images at every call (all, where there are fewer), on the CPU."""
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:n]
    cpu = torch.device("cpu")
    return [images for images, _ in data.train.batches(order, 64, device=cpu)]


def _quantized(
    subject: Subject, deployed: nn.Module, options: Options, warnings: list[str]
) -> Iterator[Quantized]:
    if subject.twin is not None and subject.config is not None:
        scheme = qat_scheme(subject.config)
        trained = qat.convert(subject.twin, scheme)
        yield Quantized(scheme, trained.network, trained.sqnr)
    assert subject.data is not None
    calibration = calibration_batches(subject.data, options.calibration_n)
    for scheme in options.schemes:
        try:
            yield Quantized(scheme, quantize(deployed, scheme, calibration))
        except NotQuantizableError as error:
            warnings.append(f"{scheme.name}: no accuracy, {error}")


def _result(quantized: Quantized, figures: Mapping[str, float | int]) -> SchemeResult:
    scheme, found = quantized.scheme, quantized.made.description
    result = SchemeResult(
        scheme=scheme.kind,
        granularity=scheme.granularity,
        weight_bits=scheme.weight_bits,
        activation_bits=found.activation_bits,
        backend=scheme.backend,
        engine=found.engine,
        observer=found.observer,
        quantized_ops=len(found.quantized),
        left_float=found.left_float,
        clip=scheme.clip,
        qat=scheme.qat,
        weights_sqnr_db=found.sqnr_db,
        **figures,  # type: ignore[arg-type]
    )
    return replace(result, **quantized.sqnr)
