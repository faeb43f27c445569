"""From a subject to its report: weights as stored and as deployed, accuracies in float and int8."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from qwd.quantize.figures import WeightFigures
from qwd.quantize.folding import Deployed, deploy, is_weight, tied
from qwd.report.accuracies import Options, calibration_batches, quantized_accuracies
from qwd.report.figures import DataInfo, ModelReport, SchemeResult, Summary
from qwd.report.function import finite
from qwd.report.measuring import WeightOptions
from qwd.report.subject import Subject
from qwd.report.weights import weights_of_model, weights_of_state
from qwd.train.data import Data

FOLDING_TOLERANCE = 1e-3
"""largest difference of an output that rounding may make, relative to the largest output"""

DEFAULT_WEIGHTS = WeightOptions()

NO_ACCURACY = "weight figures only: give --model and --data for accuracy"


def build(
    subject: Subject, options: Options, weights: WeightOptions = DEFAULT_WEIGHTS
) -> ModelReport:
    """The report of one model; ``weights`` says which figures of them are wanted.

    Raises UsageError for a pair in ``weights.fold`` that does not fit a checkpoint.
    """
    warnings = [f"decay: {text}" for text in subject.decay.warnings] if subject.decay else []
    warnings += [
        f"{name}: {layout(tensor)} tensor left out"
        for name, tensor in subject.state.items()
        if tensor.ndim >= 2 and not is_weight(tensor)
    ]
    deployed = None
    if subject.data is not None:
        warnings += subject.data.notes
    if subject.model is None:
        found = weights_of_state(subject.state, weights)
        warnings.append(NO_ACCURACY)
    else:
        deployed = verified(deploy(subject.model), subject.model, subject.data)
        warnings += deployed.warnings
        found = weights_of_model(subject.model, deployed, weights)
    warnings += found.warnings
    schemes: dict[str, SchemeResult] = {}
    float_accuracy = None
    if deployed is not None and subject.data is not None and subject.model is not None:
        float_accuracy, schemes = quantized_accuracies(subject, deployed.module, options, warnings)
    raw = [tensor.figures for tensor in found.tensors]
    return ModelReport(
        name=subject.name,
        path=subject.path,
        seed=subject.config.seed if subject.config else None,
        config=subject.config.to_dict() if subject.config else None,
        dose=subject.dose,
        decay=subject.decay,
        data=data_info(subject.data) if subject.data and float_accuracy is not None else None,
        parameters=parameter_count(subject),
        float_accuracy=float_accuracy,
        summary=summarize(float_accuracy, schemes, raw, found.as_deployed),
        schemes=schemes,
        tensors=tuple(found.tensors),
        deployed=tuple(found.deployed),
        vectors=found.vectors,
        hints=found.hints,
        warnings=tuple(warnings),
    )


def layout(tensor: Tensor) -> str:
    """What keeps a tensor out of a report: its dtype, and its layout where that is not dense."""
    words = [tensor.dtype] if tensor.layout == torch.strided else [tensor.layout, tensor.dtype]
    return " ".join(str(word).removeprefix("torch.") for word in words)


def verified(deployed: Deployed, model: nn.Module, data: Data | None) -> Deployed:
    """``deployed`` where it computes what ``model`` does, else the model with a warning.

    Compared on training images in float32: folding moves the outputs by rounding alone.
    """
    if data is None or not (deployed.folded or deployed.fused):
        return deployed
    (images,) = calibration_batches(data, 16)
    with torch.no_grad():
        expected, found = model(images), deployed.module(images)
    tolerance = FOLDING_TOLERANCE * expected.abs().max()
    # Outputs that are not finite are reported as such later.
    if not finite(expected) or (found - expected).abs().max() <= tolerance:
        return deployed
    warning = "folding BatchNorm would change the outputs, so the weights are reported as stored"
    return Deployed(copy.deepcopy(model).eval(), {}, {}, (warning,))


def summarize(
    float_accuracy: float | None,
    schemes: dict[str, SchemeResult],
    raw: list[WeightFigures],
    deployed: list[WeightFigures] | None,
) -> Summary:
    """The model in short; ``deployed`` is None where the structure is not known."""
    int8 = schemes.get("ao-static")
    seen = deployed or []
    return Summary(
        float_accuracy=float_accuracy,
        int8_accuracy=int8.accuracy if int8 else None,
        drop_pp=int8.drop_pp if int8 else None,
        flip_rate=int8.flip_rate if int8 else None,
        range=weighted_mean((f.range, f.numel) for f in raw),
        folded_range=weighted_mean((f.range, f.numel) for f in seen),
        range_over_std=weighted_mean((f.range_over_std, f.numel) for f in raw),
        folded_range_over_std=weighted_mean((f.range_over_std, f.numel) for f in seen),
        sqnr_db=weighted_mean((f.sqnr_db, f.numel) for f in raw),
        folded_sqnr_db=weighted_mean((f.sqnr_db, f.numel) for f in seen),
        outlier_rate=outlier_rate(raw),
        folded_outlier_rate=outlier_rate(seen),
        outlier_rate_sigma4=outlier_rate(raw, "sigma>4"),
        folded_outlier_rate_sigma4=outlier_rate(seen, "sigma>4"),
    )


def weighted_mean(pairs: Iterable[tuple[float | None, int]]) -> float | None:
    """Mean of the figures that exist, weighted by parameters; None where none does."""
    existing = [(figure, n) for figure, n in pairs if figure is not None and n]
    total = sum(n for _, n in existing)
    return sum(figure * n for figure, n in existing) / total if total else None


def outlier_rate(figures: list[WeightFigures], rule: str = "sigma>6") -> float | None:
    """Outliers per million weights under one rule."""
    counted = [(count, f.numel) for f in figures if (count := f.outliers.get(rule)) is not None]
    total = sum(n for _, n in counted)
    return 1e6 * sum(count for count, _ in counted) / total if total else None


def parameter_count(subject: Subject) -> int:
    """Parameters of the model; of a bare checkpoint, all but the statistics of BatchNorm."""
    if subject.model is not None:
        return sum(p.numel() for p in subject.model.parameters())
    statistics = ("running_mean", "running_var")
    again = tied(subject.state)
    return sum(
        tensor.numel()
        for name, tensor in subject.state.items()
        if tensor.is_floating_point() and not name.endswith(statistics) and name not in again
    )


def data_info(data: Data) -> DataInfo:
    """The test images a report's accuracies were measured on."""
    test = data.test
    return DataInfo(name=data.name, split=data.test_name, n=len(test), sha256=test.sha256())
