"""Reports for tests: valid ones, of any size, made in microseconds."""

from dataclasses import replace
from typing import Any

from qwd.quantize.figures import WeightFigures
from qwd.report.figures import (
    Comparison,
    DataInfo,
    DeployedReport,
    Group,
    ModelReport,
    Report,
    SchemeResult,
    Spread,
    Summary,
    TensorReport,
)


def figures(**changes: Any) -> WeightFigures:
    made = WeightFigures(
        shape=(16, 3, 3, 3),
        dtype="float32",
        numel=432,
        nan=0,
        inf=0,
        a=-0.41,
        b=0.486,
        range=0.896,
        scale=0.896 / 255,
        zero_point=-11,
        mean=0.001,
        std=0.1055,
        q1=-0.07,
        median=0.0,
        q3=0.07,
        mad=0.069,
        range_over_std=8.49,
        kurtosis=1.25,
        sqnr_db=41.2,
        sqnr_expected_db=40.34,
        rmse_over_scale=0.289,
        codes_used=201,
        entropy_bits=7.1,
        crowding=2.1493,
        zeros=0,
        outliers={"sigma>3": 12, "sigma>4": 3, "sigma>6": 1, "iqr>1.5": 9, "mad>3.5": None},
    )
    return replace(made, **changes)


def tensor(name: str = "conv.weight", sqnr: float | None = 41.2, **changes: Any) -> TensorReport:
    folded = figures(range=0.465, sqnr_db=sqnr)
    return replace(TensorReport(name=name, figures=figures(), folded=folded), **changes)


def scheme(**changes: Any) -> SchemeResult:
    made = SchemeResult(
        scheme="affine",
        granularity="tensor",
        weight_bits=8,
        activation_bits=8,
        backend="ao",
        engine="x86",
        observer="histogram",
        quantized_ops=10,
        left_float=(),
        accuracy=0.97,
        drop_pp=0.5,
        flip_n=4,
        flip_rate=0.02,
        kl=0.00123,
        mcnemar_p=0.625,
    )
    return replace(made, **changes)


def summary(**changes: Any) -> Summary:
    made = Summary(
        float_accuracy=0.975,
        int8_accuracy=0.97,
        drop_pp=0.5,
        flip_rate=0.02,
        range=0.896,
        folded_range=0.465,
        range_over_std=8.49,
        folded_range_over_std=9.1,
        sqnr_db=41.2,
        folded_sqnr_db=40.1,
        outlier_rate=2.5,
        folded_outlier_rate=3.5,
        outlier_rate_sigma4=400.0,
        folded_outlier_rate_sigma4=500.0,
    )
    return replace(made, **changes)


DATA = DataInfo(name="digits", split="test", n=200, sha256="ab" * 32)
WEIGHTS_ALONE = scheme(activation_bits=None, backend="weights", engine=None, observer="min and max")


def model(name: str = "net", **changes: Any) -> ModelReport:
    made = ModelReport(
        name=name,
        path=f"runs/{name}",
        seed=0,
        config={"wd": 1e-4, "no_decay": ["bias"], "amp": False, "nested": {"lr": 0.1}},
        dose=0.123,
        data=DATA,
        parameters=12345,
        float_accuracy=0.975,
        summary=summary(),
        schemes={"ao-static": scheme(), "affine-tensor": WEIGHTS_ALONE},
        tensors=(tensor(), tensor("fc.weight", folded=None)),
        deployed=(
            DeployedReport(name="block", sources=("a.weight", "b.weight"), figures=figures()),
        ),
        warnings=("fc stayed in float",),
    )
    return replace(made, **changes)


def weights_only(name: str = "net.safetensors") -> ModelReport:
    """What a bare checkpoint gives: no data, no accuracy, nothing folded."""
    unknown = {f"folded_{f}": None for f in ("range", "range_over_std", "sqnr_db", "outlier_rate")}
    none = dict.fromkeys(("float_accuracy", "int8_accuracy", "drop_pp", "flip_rate"))
    return model(
        name,
        seed=None,
        config=None,
        dose=None,
        data=None,
        float_accuracy=None,
        summary=summary(**unknown, **none),
        schemes={},
        tensors=(tensor(folded=None),),
        deployed=(),
        warnings=("weight figures only",),
    )


def report(*models: ModelReport) -> Report:
    """The report of these models (default: one), without a comparison."""
    return Report(models=models or (model(),))


def group(name: str, models: tuple[str, ...], **metrics: Spread | None) -> Group:
    every = {
        "float_accuracy": Spread(mean=0.975, std=0.0012),
        "int8_accuracy": Spread(mean=0.97, std=0.0034),
        "drop_pp": Spread(mean=0.5, std=0.21),
        "flip_rate": Spread(mean=0.02, std=0.001),
        "range": Spread(mean=0.896, std=0.0123),
        "folded_range": Spread(mean=0.465, std=None),
        "sqnr_db": Spread(mean=41.2, std=0.3),
    }
    return Group(name=name, models=models, wd=1e-4, dose=0.123, metrics={**every, **metrics})


def several(n: int = 2) -> Report:
    """A report of ``n`` models, each a group of its own, with readings."""
    names = [f"run{i}" for i in range(n)]
    return Report(
        models=tuple(
            model(name, seed=i, warnings=("shared warning",)) for i, name in enumerate(names)
        ),
        comparison=Comparison(
            groups=tuple(group(f"wd {i + 1}e-4", (name,)) for i, name in enumerate(names)),
            readings=("The raw range falls, the folded range does not.",),
        ),
    )


def changed(*keys: str | int, to: Any) -> dict[str, Any]:
    """A valid report as JSON, but for one entry."""
    value = report().to_dict()
    holder: Any = value
    for key in keys[:-1]:
        holder = holder[key]
    holder[keys[-1]] = to
    return value
