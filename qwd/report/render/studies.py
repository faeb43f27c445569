"""Sensitivity and remedies as blocks of a page."""

from collections.abc import Iterator, Sequence

from qwd.report.figures import ModelReport
from qwd.report.render import numbers
from qwd.report.render.blocks import Block, Heading, Note, Table
from qwd.report.variants import Effect, Part, Remedies, Remedy, Sensitivity

EFFECT = ("accuracy", "drop", "flips", "KL")


def studies(model: ModelReport, top: int | None) -> Iterator[Block]:
    """Those that a model's report has, each under a heading of its own."""
    if model.sensitivity:
        yield Heading(f"{model.name}: sensitivity")
        yield from sensitivity(model.sensitivity, top)
    if model.remedies:
        yield Heading(f"{model.name}: remedies")
        yield from remedies(model.remedies)


def sensitivity(found: Sensitivity, top: int | None) -> Iterator[Block]:
    """What weights and activations lose, then each part alone and left in float, then advice."""
    yield Note(
        f"{found.scheme} on the backend {found.backend}, ranges by {found.observer}; "
        f"{_images(found.n, found.split)}, each {numbers.points(100 / found.n)}; "
        f"float accuracy {numbers.percent(found.float_accuracy)}"
    )
    yield Table(
        header=("quantized", *EFFECT, "95 % interval of the drop"),
        rows=tuple(
            (what, *_effect(effect), _interval(effect.drop_low_pp, effect.drop_high_pp))
            for what, effect in (
                ("everything", found.quantized),
                ("weights only", found.weights_only),
                ("activations only", found.activations_only),
            )
        ),
    )
    yield from _parts("layer", "layers", found.layers, top)
    if found.activations:
        yield from _parts("other activation", "other activations", found.activations, top)
    yield from (Note(f"{text[:1].upper()}{text[1:]}.") for text in found.advice)


def remedies(found: Remedies) -> Iterator[Block]:
    """The scheme as it is, every remedy, and which one was chosen."""
    before = found.before.effect
    assert before is not None
    yield Note(
        f"{found.before.scheme}, limit {numbers.points(found.limit_pp)}; "
        f"{_images(found.n, found.split)}, each {numbers.points(100 / found.n)}; "
        f"float accuracy {numbers.percent(found.float_accuracy)}"
    )
    drop = f"{numbers.points(before.drop_pp)} (accuracy {numbers.percent(before.accuracy)})"
    if not found.entries:
        yield Note(f"The drop of {drop} is within the limit: nothing was tried.")
        return
    yield Table(
        header=("remedy", *EFFECT, "recovers", "95 % interval", "scheme", "runs on"),
        words=("scheme", "runs on"),
        rows=(
            ("as it is", *_row(found.before)),
            *((remedy.name, *_row(remedy)) for remedy in found.entries),
        ),
    )
    for remedy in found.entries:
        if remedy.failure is not None:
            yield Note(f"{remedy.name} could not be tried: {remedy.failure}", "warning")
    yield Note(_verdict(found, drop))
    if found.hint is not None:
        yield Note(f"Quantization-aware training, not tried here: {found.hint}")


def _parts(what: str, several: str, parts: Sequence[Part], top: int | None) -> Iterator[Block]:
    """Two rows for each: it alone quantized, and all but it."""
    rows: list[tuple[str, ...]] = []
    for part in parts[:top]:
        rows.append((part.name, "it alone", *_effect(part.alone), numbers.NONE, numbers.NONE))
        interval = _interval(part.recovered_low_pp, part.recovered_high_pp)
        recovered = numbers.points(part.recovered_pp)
        rows.append(("", "all but it", *_effect(part.left_float), recovered, interval))
    yield Table(
        header=(what, "quantized", *EFFECT, "recovers", "95 % interval"), rows=tuple(rows), keys=2
    )
    if top is not None and len(parts) > top:
        yield Note(f"The most sensitive {top} of {len(parts)} {several}; --top N shows more.")


def _row(remedy: Remedy) -> tuple[str, ...]:
    effect, none = remedy.effect, numbers.NONE
    interval = none
    if remedy.recovered_low_pp is not None and remedy.recovered_high_pp is not None:
        interval = _interval(remedy.recovered_low_pp, remedy.recovered_high_pp)
    return (
        *(_effect(effect) if effect else (none,) * len(EFFECT)),
        numbers.points(remedy.recovered_pp),
        interval,
        remedy.scheme,
        f"{remedy.backend}/{remedy.engine}" if remedy.engine else remedy.backend,
    )


def _verdict(found: Remedies, drop: str) -> str:
    chosen = next((r for r in found.entries if r.name == found.chosen), None)
    if chosen is None or chosen.effect is None:
        return "No remedy that was tried is better than the scheme as it is."
    within = "within" if chosen.effect.drop_pp <= found.limit_pp else "still beyond"
    doubt = ""
    if chosen.recovered_low_pp is not None and chosen.recovered_low_pp <= 0:
        doubt = f"; {numbers.count(found.n)} images cannot tell that from chance"
    return (
        f"Best: {chosen.name}. The drop goes from {drop} to "
        f"{numbers.points(chosen.effect.drop_pp)} "
        f"(accuracy {numbers.percent(chosen.effect.accuracy)}), {within} the limit{doubt}. "
        f"On the {found.test_split} split, read once: accuracy "
        f"{numbers.percent(found.test_accuracy)}, drop {numbers.points(found.test_drop_pp)}."
    )


def _effect(effect: Effect) -> tuple[str, ...]:
    return (
        numbers.percent(effect.accuracy),
        numbers.points(effect.drop_pp),
        f"{numbers.count(effect.flip_n)} ({numbers.percent(effect.flip_rate)})",
        f"{effect.kl:.3g}",
    )


def _interval(low: float, high: float) -> str:
    return f"{low:z.2f} to {high:z.2f} pp"


def _images(n: int, split: str) -> str:
    return f"{numbers.count(n)} images of the {split} split"
