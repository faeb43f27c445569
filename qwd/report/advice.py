"""What a sensitivity says in sentences: whose fault the drop is, and what to leave in float."""

from collections.abc import Iterator, Sequence

from qwd.report.variants import MixedPrecision, Sensitivity

MOST = 0.75
"""share of a drop that counts as most of it"""


def is_most(part_pp: float, whole_pp: float) -> bool:
    """Whether ``part_pp`` is most of a drop of ``whole_pp``."""
    return part_pp >= MOST * whole_pp


def sentences(found: Sensitivity, *, per_channel: bool) -> Iterator[str]:
    """The advice; ``per_channel`` says that the weights have a scale per output channel."""
    whole = found.quantized
    interval = _interval(whole.drop_low_pp, whole.drop_high_pp)
    if whole.drop_low_pp <= 0:
        drop = f"the drop of {whole.drop_pp:z.2f} pp is within what {found.n:,} images can show"
        if whole.drop_pp <= 0:
            drop = f"nothing is lost on {found.n:,} images, with a drop of {whole.drop_pp:z.2f} pp"
        yield f"{drop} ({interval}): no layer is shown to need float"
        return
    yield _blame(found, per_channel)
    if found.mixed is not None:
        yield _mixed(found.mixed, whole.drop_pp)


def _blame(found: Sensitivity, per_channel: bool) -> str:
    """Weights, activations or both."""
    weights, activations = found.weights_only.drop_pp, found.activations_only.drop_pp
    whole = found.quantized.drop_pp
    of = f"of {whole:.2f} pp"
    if is_most(activations, whole) and weights <= (1 - MOST) * whole:
        scales = "clipping the weights" if per_channel else "per-channel weights"
        return (
            f"activations alone account for {activations:z.2f} {of}, weights alone for "
            f"{weights:z.2f}: {scales} will not help"
        )
    if is_most(weights, whole) and activations <= (1 - MOST) * whole:
        return (
            f"weights alone account for {weights:z.2f} {of}, activations alone for "
            f"{activations:z.2f}: more bits for activations will not help"
        )
    return (
        f"weights alone account for {weights:z.2f} and activations alone for {activations:z.2f} "
        f"{of}: both are to blame"
    )


def _mixed(mixed: MixedPrecision, drop_pp: float) -> str:
    recovered = f"recovers {mixed.recovered_pp:z.2f} of {drop_pp:.2f} pp"
    interval = _interval(mixed.recovered_low_pp, mixed.recovered_high_pp)
    start = f"leaving {listed(mixed.left_float)} in float {recovered} ({interval})"
    if mixed.recovered_low_pp <= 0:
        return f"{start}, which these images cannot tell from nothing: the drop has no single place"
    if not is_most(mixed.recovered_pp, drop_pp):
        return f"{start}: the rest of the drop is spread over the network"
    by_weights = f"{mixed.by_weights_pp:z.2f} pp by the weights alone"
    if is_most(mixed.by_weights_pp, mixed.recovered_pp):
        return f"{start}, {by_weights}"
    outputs = "the output has" if len(mixed.left_float) == 1 else "the outputs have"
    return f"{start}, but {by_weights}: {outputs} to stay in float too"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _interval(low: float, high: float) -> str:
    return f"95 % interval {low:z.2f} to {high:z.2f} pp"
