"""From a list of models to lines of decays: what may be compared with what."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwd.errors import UsageError
from qwd.report.figures import ModelReport
from qwd.report.grouping import Key, labels, settings, settings_but_decay
from qwd.report.verdict.figures import Arm
from qwd.setting import short


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs of one decay, by what pairs them with another's: the seed."""

    name: str
    wd: float
    dose: float | None
    by_seed: Mapping[int, ModelReport]

    @property
    def arm(self) -> Arm:
        """The same without the models."""
        return Arm(name=self.name, wd=self.wd, dose=self.dose, seeds=tuple(sorted(self.by_seed)))

    def decays_more(self, than: "Runs") -> bool | None:
        """By dose, or where either has none by coefficient; None where they are equal."""
        if self.dose is None or than.dose is None:
            own, other = self.wd, than.wd
        else:
            own, other = self.dose, than.dose
        return None if own == other else own > other


@dataclass(frozen=True, kw_only=True)
class Line:
    """All decays of one setting, and which of them the others are compared with."""

    name: str
    reference: Runs
    others: tuple[Runs, ...]


def lines(
    models: Sequence[ModelReport], reference: float | None
) -> tuple[list[Line], tuple[str, ...]]:
    """A line per setting with two decays or more, and the names of models that belong to none.

    Settings are all of the training but decay and seed, and the test images. Arms stand in order
    of their dose, the least first; the reference is the first one, or the first whose wd is
    ``reference``. A model without a seed or settings is left out. Raises UsageError where nothing
    can be compared, where no arm has the reference, and where one arm has a seed twice.
    """
    known = [m for m in models if m.seed is not None and _wd(m) is not None]
    members: dict[Key, dict[Key, list[ModelReport]]] = {}
    for model in known:
        members.setdefault(settings_but_decay(model), {}).setdefault(settings(model), []).append(
            model
        )
    grids = {key: arms for key, arms in members.items() if len(arms) > 1}
    if not grids:
        raise UsageError(
            f"nothing to compare among {len(models)} models: expected runs of one setting with "
            "two decays or more"
        )
    names = _names(list(grids), [next(iter(arms.values()))[0] for arms in grids.values()])
    made = [_line(name, arms, reference) for name, arms in zip(names, grids.values(), strict=True)]
    placed = {id(m) for arms in grids.values() for found in arms.values() for m in found}
    return made, tuple(m.name for m in models if id(m) not in placed)


def _line(name: str, arms: Mapping[Key, list[ModelReport]], reference: float | None) -> Line:
    named = zip(labels(list(arms)), arms.values(), strict=True)
    runs = [_runs(label, found) for label, found in named]
    runs.sort(key=lambda r: (math.inf if r.dose is None else r.dose, r.wd))
    first = next((r for r in runs if reference is None or r.wd == reference), None)
    if first is None:
        found = ", ".join(short(wd) for wd in sorted({r.wd for r in runs}))
        raise UsageError(f"reference {short(reference or 0.0)}: {name} has the decays {found}")
    return Line(name=name, reference=first, others=tuple(r for r in runs if r is not first))


def _runs(label: str, models: Sequence[ModelReport]) -> Runs:
    by_seed: dict[int, ModelReport] = {}
    for model in models:
        assert model.seed is not None
        before = by_seed.setdefault(model.seed, model)
        if before is not model:
            raise UsageError(
                f"{before.name} and {model.name}: two runs of {label} with seed {model.seed}, "
                "expected one"
            )
    wd = _wd(models[0])
    assert wd is not None
    return Runs(name=label, wd=wd, dose=models[0].dose, by_seed=by_seed)


def _wd(model: ModelReport) -> float | None:
    """The decay a model was trained with; the settings in a report may be anything."""
    value: Any = (model.config or {}).get("wd")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _names(keys: Sequence[Key], examples: Sequence[ModelReport]) -> list[str]:
    """``small_cnn on digits``, and what else tells the settings apart."""
    # Model and data are named in any case, and digests by the data they are of.
    rest = [tuple((k, v) for k, v in key if k not in ("model", "data", "digest")) for key in keys]
    names = []
    for model, label in zip(examples, labels(rest), strict=True):
        config = model.config or {}
        data = model.data.name if model.data else config.get("data", "unknown data")
        names.append(", ".join(filter(None, [f"{config.get('model', 'model')} on {data}", label])))
    digests = [dict(key)["digest"][:8] for key in keys]
    return [
        f"{name}, images {digest}" if names.count(name) > 1 else name
        for name, digest in zip(names, digests, strict=True)
    ]
