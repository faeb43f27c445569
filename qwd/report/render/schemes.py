"""The accuracies of a model under its schemes, and what computed them."""

from collections.abc import Iterator, Mapping

from qwd.report.figures import SchemeResult
from qwd.report.render import numbers
from qwd.report.render.blocks import Block, Note, Table


def schemes(results: Mapping[str, SchemeResult]) -> Iterator[Block]:
    """A row per scheme, then how ranges were found, then what training computed with."""
    yield Table(
        header=(
            *("scheme", "accuracy", "drop", "flips", "KL", "McNemar p"),
            *("arithmetic", "runs on", "quantized", "left float"),
        ),
        words=("arithmetic", "runs on", "left float"),
        rows=tuple(
            (
                name,
                numbers.percent(s.accuracy),
                numbers.points(s.drop_pp),
                f"{numbers.count(s.flip_n)} ({numbers.percent(s.flip_rate)})",
                f"{s.kl:.3g}",
                f"{s.mcnemar_p:.3g}",
                _arithmetic(s),
                f"{s.backend}/{s.engine}" if s.engine else s.backend,
                numbers.count(s.quantized_ops),
                f"{len(s.left_float)}: {numbers.listed(s.left_float)}" if s.left_float else "0",
            )
            for name, s in results.items()
        ),
    )
    observers: dict[str, list[str]] = {}
    for name, result in results.items():
        if result.observer:
            observers.setdefault(result.observer, []).append(name)
    for observer, names in observers.items():
        yield Note(f"ranges by {observer}: {', '.join(names)}")
    for name, result in results.items():
        if result.qat:
            trained, converted = (
                numbers.decibel(figure)
                for figure in (result.training_sqnr_db, result.converted_sqnr_db)
            )
            yield Note(
                f"{name}: SQNR of the weights {trained} dB as training computed with them, "
                f"{converted} dB as converted"
            )


def _arithmetic(result: SchemeResult) -> str:
    """What ran, which may have fewer bits of activations than the name says."""
    clip = f"-{result.clip}" if result.clip != "none" else ""
    activations = f"-a{result.activation_bits}" if result.activation_bits is not None else ""
    return f"{result.scheme}-{result.granularity}{clip}-w{result.weight_bits}{activations}"
