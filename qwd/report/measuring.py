"""Measuring weights one at a time: each is folded, measured and let go.

So a checkpoint may be larger than memory.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from qwd.quantize import kernels_loading
from qwd.quantize.channels import ChannelFigures, channel_figures
from qwd.quantize.figures import WeightFigures
from qwd.quantize.statistics import weight_figures
from qwd.report.figures import ChannelReport, DeployedReport, TensorReport, VectorGroup
from qwd.report.read_ahead import read_ahead
from qwd.report.remedy_hints import Seen

SMALL = 100_000_000
"""bytes of weights up to which figures that need order statistics are found without being asked"""
BN_EPS = 1e-5
"""torch's default for BatchNorm"""
SHOWN_DEAD = 20
"""dead channels named in a report"""


@dataclass(frozen=True, kw_only=True)
class WeightOptions:
    """Which figures of weights a report has."""

    bits: tuple[int, ...] = (8,)
    full: bool | None = None
    """with order statistics; None: where the weights are small"""
    fold: tuple[str, ...] = ()
    """pairs of a layer and a BatchNorm; see `qwd.quantize.pairing.pair_norms`"""
    bn_eps: float = BN_EPS
    matching: str | None = None
    """regular expression for the names of weights to measure"""
    on_bytes: Callable[[int, int], None] = lambda done, of: None
    """hears after each tensor how many bytes are done, of how many"""

    def wants(self, name: str) -> bool:
        """Whether the weight called ``name`` is to be measured."""
        return self.matching is None or re.search(self.matching, name) is not None


@dataclass(kw_only=True)
class Weights:
    """What was found."""

    tensors: list[TensorReport] = field(default_factory=list)
    deployed: list[DeployedReport] = field(default_factory=list)
    as_deployed: list[WeightFigures] | None = None
    """of all weights that int8 sees; None where the structure is not known"""
    vectors: tuple[VectorGroup, ...] = ()
    warnings: list[str] = field(default_factory=list)
    hints: tuple[str, ...] = ()


class Measure:
    """Measures tensor after tensor."""

    def __init__(
        self,
        names: list[str],
        stored: Callable[[str], Tensor],
        folded: Callable[[str], Tensor | None],
        factor: Callable[[str], Tensor | None],
        kinds: Mapping[str, str],
        options: WeightOptions,
        made: Weights,
    ):
        self.names = [name for name in names if options.wants(name)]
        self.stored, self.folded, self.factor = stored, folded, factor
        self.kinds, self.options, self.made = kinds, options, made
        self.norms: dict[str, str] = {}
        self.axes = {name: 1 for name, kind in kinds.items() if kind == "transposed"}
        """of the output channels, where it is not 0"""
        sizes = [stored(name) for name in self.names]
        self.bytes = sum(t.numel() * t.element_size() for t in sizes)
        kernels_loading.expect(sum(t.numel() for t in sizes))
        self.full = self.bytes <= SMALL if options.full is None else options.full
        if options.matching is not None:
            made.warnings.append(
                f"{len(self.names)} of {len(names)} weights match --filter "
                f"{options.matching!r:.80}: every figure is of those alone"
            )
        if not self.full:
            made.warnings.append(
                "quartiles, MAD, crowding and their outlier rules are left out: --full finds them"
            )

    def all(self) -> Iterator[Seen]:
        """Every weight as a report has it, and what hints need."""
        done = 0
        self.options.on_bytes(done, self.bytes)
        tensors = read_ahead(self.stored(name) for name in self.names)
        for name, tensor in zip(self.names, tensors, strict=True):
            figures, found = self._figures(name, tensor)
            channels, folded, after = channel_report(found), None, None
            w = self.folded(name)
            if w is not None:
                folded, of_folded = self._figures(name, w, "after folding, ")
                after = channel_report(of_folded)
            del w
            kind = self.kinds.get(name, "other")
            self.made.tensors.append(
                TensorReport(
                    name=name,
                    figures=figures,
                    folded=folded,
                    kind=kind,
                    norm=self.norms.get(name) if folded else None,
                    channels=channels,
                    folded_channels=after,
                )
            )
            self._warn_dead(name, found)
            done += tensor.numel() * tensor.element_size()
            self.options.on_bytes(done, self.bytes)
            yield Seen(
                name=name,
                kind=kind,
                raw=figures,
                deployed=folded or figures,
                channels=after or channels,
            )

    def fused(self, name: str, sources: tuple[str, ...], w: Tensor) -> None:
        """A kernel that several tensors become."""
        figures, channels = self._figures(name, w, "after folding, ")
        self.made.deployed.append(
            DeployedReport(
                name=name, sources=sources, figures=figures, channels=channel_report(channels)
            )
        )

    def tensor(self, name: str) -> Tensor:
        """The weight as deployed, once more."""
        w = self.folded(name)
        return self.stored(name) if w is None else w

    def _figures(
        self, name: str, w: Tensor, when: str = ""
    ) -> tuple[WeightFigures, ChannelFigures | None]:
        figures = weight_figures(w, full=self.full, bits=self.options.bits)
        if figures.nan or figures.inf:
            self.made.warnings.append(
                f"{when}{name}: {figures.nan} NaN and {figures.inf} infinite elements left out"
            )
        if not w.numel():
            self.made.warnings.append(f"{when}{name}: it has no elements")
        elif figures.range is None and figures.a is not None:
            self.made.warnings.append(f"{when}{name}: its range is beyond float64")
        channels = channel_figures(w, self.axes.get(name, 0), of=figures) if w.numel() else None
        return figures, channels

    def _warn_dead(self, name: str, found: ChannelFigures | None) -> None:
        if found is not None and found.dead and self.kinds.get(name) != "embedding":
            which = ", ".join(map(str, found.dead[:5])) + (", ..." if len(found.dead) > 5 else "")
            self.made.warnings.append(
                f"{name}: {len(found.dead)} of {found.channels} channels are all zero ({which})"
            )


def channel_report(found: ChannelFigures | None) -> ChannelReport | None:
    """What a report keeps of channels; None where there are none."""
    if found is None:
        return None
    return ChannelReport(
        axis=found.axis,
        channels=found.channels,
        range_median=found.range_median,
        spread=found.spread,
        dead=len(found.dead),
        dead_channels=found.dead[:SHOWN_DEAD],
        floored=found.floored,
        sqnr_db=found.sqnr_db,
        sqnr_expected_db=found.sqnr_expected_db,
        gain_db=found.gain_db,
    )
