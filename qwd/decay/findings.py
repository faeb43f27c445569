"""What an audit of the decay has found, parameter by parameter."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from qwd.errors import VerificationError


@dataclass(frozen=True, kw_only=True)
class AuditedParameter:
    """What is decayed by how much, and what a step without gradient did to it."""

    name: str
    kind: str
    """see `qwd.decay.KINDS`"""
    shape: tuple[int, ...]
    numel: int
    dtype: str
    form: str | None
    """None: not decayed; ``unknown`` where a decay of the optimizer's own is of no known form"""
    coefficient: float
    """at its peak: before the schedule, after the factor of the parameter"""
    lr: float | None
    """peak rate; None for a parameter that the optimizer does not have"""
    lost: float | None
    """share of the weight that the step takes, w . (w - w') / |w|^2; None for zero weights"""
    ulps: float | None
    """largest distance from the formula in units in the last place; None where not verified"""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The decay of every parameter of a model, and whether the optimizer carries it out."""

    optimizer: str
    parameters: tuple[AuditedParameter, ...]
    failures: tuple[str, ...]
    """where the step was not the form's"""
    warnings: tuple[str, ...]

    @property
    def decayed(self) -> int:
        """Elements under decay."""
        return sum(p.numel for p in self.parameters if p.form is not None)

    @property
    def share(self) -> float:
        """Decayed elements over all of the model's."""
        return self.decayed / max(1, sum(p.numel for p in self.parameters))

    @property
    def ulps(self) -> float:
        """The largest distance of any parameter from its formula, in units in the last place."""
        return max((p.ulps for p in self.parameters if p.ulps is not None), default=0.0)

    @property
    def unverified(self) -> int:
        """Elements in the optimizer that no step was, or could be, verified on."""
        return sum(p.numel for p in self.parameters if p.lr is not None and p.ulps is None)

    def to_dict(self) -> dict[str, Any]:
        """The table as JSON holds it, totals first."""
        totals = {"decayed": self.decayed, "share": self.share, "ulps": self.ulps}
        return totals | dataclasses.asdict(self)

    def check(self) -> None:
        """Raise VerificationError where the step was not the form's."""
        if self.failures:
            raise VerificationError(f"the audit of the decay failed: {'; '.join(self.failures)}")

    def __str__(self) -> str:
        width = max([len(p.name) for p in self.parameters], default=0)
        lines = [
            f"{p.name:<{width}}  {p.kind:<9}  {p.numel:>10,}  {p.form or '-':<11}  "
            f"{p.coefficient:<10.4g}  {'-' if p.lost is None else format(p.lost, '.3g'):<10}  "
            f"{'-' if p.ulps is None else format(p.ulps, '.2f')}"
            for p in self.parameters
        ]
        head = (
            f"{'parameter':<{width}}  {'kind':<9}  {'elements':>10}  {'form':<11}  "
            f"{'wd':<10}  {'lost':<10}  ulps"
        )
        verdict = "; ".join(self.failures) or self._verdict
        total = f"{self.decayed:,} elements decayed, {self.share:.1%} of all; {verdict}"
        return "\n".join([head, *lines, total, *(f"warning: {w}" for w in self.warnings)])

    @property
    def _verdict(self) -> str:
        if all(p.ulps is None for p in self.parameters):
            return "not verified"
        missing = f", {self.unverified:,} not verified" if self.unverified else ""
        return f"verified within {self.ulps:.2f} ulps{missing}"
