"""Checkpoints side by side, tensor by tensor, matched by name."""

from collections.abc import Iterator, Sequence
from itertools import takewhile

from qwd.quantize.figures import WeightFigures
from qwd.report.figures import ModelReport, TensorReport
from qwd.report.render import numbers
from qwd.report.render.blocks import Block, Heading, Note, Table


def by_tensor(models: Sequence[ModelReport], top: int | None) -> Iterator[Block]:
    """A column per checkpoint.

    Nothing for runs, which are compared by what they were trained with, and for checkpoints that
    have no tensor in common.
    """
    if len(models) < 2 or any(model.config is not None for model in models):
        return
    table = list(tensor_table(models, [model.name for model in models], top))
    if table:
        yield Heading("Tensor by tensor")
    yield from table


def tensor_table(
    models: Sequence[ModelReport], titles: Sequence[str], top: int | None
) -> Iterator[Block]:
    """Range, range/std and SQNR of each tensor as deployed, and where that is not as it is
    stored its raw range; a column per model, under its title.

    The tensors whose SQNR differs most come first. Where the checkpoints have no name in common,
    names are compared without the prefix that all names of a checkpoint have.
    """
    found = [{t.name: t for t in model.tensors} for model in models]
    common = _in_all(found)
    if not common:
        found = [_without_prefix(each) for each in found]
        common = _in_all(found)
    if not common:
        return
    worst = sorted(common, key=lambda name: -_difference(common[name]))
    rows: list[tuple[str, ...]] = []
    for name in worst[:top]:
        every = common[name]
        rows.append((name, "range", *(numbers.digits(f.range) for f in every)))
        if any(each[name].folded for each in found):
            raw = (numbers.digits(each[name].figures.range) for each in found)
            rows.append(("", "  raw", *raw))
        rows.append(("", "range/std", *(numbers.digits(f.range_over_std) for f in every)))
        rows.append(("", "SQNR dB", *(numbers.decibel(f.sqnr_db) for f in every)))
    yield Table(header=("tensor", "as deployed", *titles), rows=tuple(rows), keys=2)
    if top is not None and len(common) > top:
        which = f"The {top} of {len(common)} tensors whose SQNR differs most"
        yield Note(f"{which}; --top N shows more.")
    alone = sum(len(each) - len(common) for each in found)
    if alone:
        yield Note(f"{alone} tensors are not in every checkpoint.")
    other = sum(len({f.shape for f in every}) > 1 for every in common.values())
    if other:
        yield Note(f"{other} tensors do not have the same shape in every checkpoint.")


def _in_all(found: Sequence[dict[str, TensorReport]]) -> dict[str, list[WeightFigures]]:
    """The figures as deployed of the names that every checkpoint has."""
    return {
        name: [each[name].folded or each[name].figures for each in found]
        for name in found[0]
        if all(name in each for each in found)
    }


def _without_prefix(tensors: dict[str, TensorReport]) -> dict[str, TensorReport]:
    """``conv1.weight`` for ``model.conv1.weight``; the module's own name stays."""
    paths = [name.split(".") for name in tensors]
    levels = zip(*(path[:-2] for path in paths), strict=False)
    n = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    return {".".join(path[n:]): t for path, t in zip(paths, tensors.values(), strict=True)}


def _difference(every: Sequence[WeightFigures]) -> float:
    """The largest distance of two SQNRs, in dB."""
    existing = [f.sqnr_db for f in every if f.sqnr_db is not None]
    return max(existing) - min(existing) if existing else 0.0
