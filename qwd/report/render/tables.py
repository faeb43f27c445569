"""A report as a page of blocks, the same for text and Markdown."""

from collections.abc import Iterator, Sequence

from qwd.report.figures import DecayAudit, DecayedParameter, ModelReport, Report, Summary
from qwd.report.render import numbers, verdict
from qwd.report.render.blocks import Block, Heading, Note, Table
from qwd.report.render.by_tensor import by_tensor
from qwd.report.render.schemes import schemes
from qwd.report.render.side_by_side import comparison
from qwd.report.render.studies import studies
from qwd.report.render.tensors import RULE, deployed, kinds, tensors
from qwd.report.render.trajectory import trajectory

TOP = 10
"""tensors shown of a model"""
MODELS = 4
"""models shown one by one where nobody asks for more"""


def blocks(report: Report, top: int | None = None, sort: str | None = None) -> list[Block]:
    """Each model, worst tensors first, then all side by side, then what that says.

    ``top`` is the number of tensors per model (default 10; 0: all), ``sort`` one of
    `qwd.report.render.tensors.SORTS` in place of the SQNR. Of a series of checkpoints the last is
    shown, then the trajectory. More than four models are shown side by side alone, unless ``top``
    is given.
    """
    page: list[Block] = []
    tensors_shown = TOP if top is None else top or None
    series = report.comparison.series if report.comparison else ()
    passed = {name for each in series for name in each.models[:-1]}
    models = [model for model in report.models if model.name not in passed]
    if report.comparison and top is None and len(models) > MODELS:
        left_out = f"The details of {len(models)} models are left out: qwd quantize-report --top N "
        page.append(Note(f"{left_out}shows them, or report one of the models alone."))
        for model in models:
            page += studies(model, TOP)
        page += _warnings(report.models)
    else:
        for model in models:
            page += _model(model, tensors_shown, sort)
        page += _warnings([model for model in report.models if model.name in passed], models)
        page += by_tensor(models, tensors_shown)
    by_name = {model.name: model for model in report.models}
    for each in series:
        page += trajectory(each, by_name, tensors_shown)
    if not report.models:
        page.append(Note("The report holds no models."))
    if report.comparison:
        page += comparison(report.comparison, report.verdict is not None)
    if report.verdict:
        page += verdict.blocks(report.verdict)
    return page


def _model(model: ModelReport, top: int | None, sort: str | None) -> Iterator[Block]:
    yield Heading(model.name)
    data = model.data
    most = "at most " if (model.config or {}).get("cautious") else ""
    accuracy = f"float accuracy {numbers.percent(model.float_accuracy)}"
    facts = [
        f"data {data.name} {data.split}, n {numbers.count(data.n)}" if data else "no data",
        f"{numbers.count(model.parameters)} parameters",
        f"dose {most}{numbers.digits(model.dose, 3)}"
        if model.dose is not None
        else "dose not known",
        accuracy if model.float_accuracy is not None else "accuracy not measured",
    ]
    yield Note("; ".join(facts))
    if model.decay:
        yield from _decay(model.decay)
    if model.schemes:
        yield from schemes(model.schemes)
    yield _summary(model.summary)
    if model.tensors:
        yield from kinds(model)
        yield from tensors(model.tensors, top, sort)
    else:
        yield Note("There is no weight tensor.")
    if model.deployed:
        yield from deployed(model.deployed, top)
    yield from (Note(text) for text in model.hints)
    yield from (Note(text, "warning") for text in model.warnings)
    yield from studies(model, top)


def _decay(audit: DecayAudit) -> Iterator[Block]:
    """Parameters of one kind and one coefficient in a row."""
    alike: dict[tuple[str, str, str], list[DecayedParameter]] = {}
    for p in audit.parameters:
        key = (p.form or "not decayed", p.kind, numbers.decay(p.coefficient) if p.form else "-")
        alike.setdefault(key, []).append(p)
    yield Table(
        header=("decay", "of", "wd", "tensors", "elements", "step takes, at the peak rate"),
        keys=3,
        rows=tuple(
            (
                *key,
                numbers.count(len(found)),
                numbers.count(sum(p.numel for p in found)),
                numbers.digits(max((p.lost for p in found if p.lost is not None), default=None), 3)
                if found[0].form
                else "0",
            )
            for key, found in alike.items()
        ),
    )
    verified = (
        f"verified by a step without gradient, within {audit.ulps:.2g} units in the last place"
    )
    missing = sum(p.numel for p in audit.parameters if p.lr is not None and p.ulps is None)
    if missing:
        verified += f", {numbers.count(missing)} of them not"
    if all(p.ulps is None for p in audit.parameters):
        verified = "not verified"
    verdict = "; ".join(audit.failures) or verified
    yield Note(f"{numbers.percent(audit.share)} of the parameters are decayed, {verdict}.")


def _summary(summary: Summary) -> Table:
    figures = {
        "range": ("range", numbers.digits),
        "range/std": ("range_over_std", numbers.digits),
        "SQNR, dB": ("sqnr_db", numbers.decibel),
        "sigma>4 per million": ("outlier_rate_sigma4", numbers.digits),
        f"{RULE} per million": ("outlier_rate", numbers.digits),
    }
    return Table(
        header=("mean over weights", "raw", "folded"),
        rows=tuple(
            (label, shown(getattr(summary, field)), shown(getattr(summary, f"folded_{field}")))
            for label, (field, shown) in figures.items()
        ),
    )


def _warnings(models: Sequence[ModelReport], shown: Sequence[ModelReport] = ()) -> Iterator[Note]:
    """Every warning once, with the models that it is about, but for those of models shown."""
    about: dict[str, list[str]] = {}
    said = {text for model in shown for text in model.warnings}
    for model in models:
        for text in model.warnings:
            if text not in said:
                about.setdefault(text, []).append(model.name)
    for text, names in about.items():
        yield Note(f"{numbers.listed(names)}: {text}", "warning")
