"""Sensitivity and remedies of a report, where they are asked for."""

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from qwd import parsing
from qwd.errors import UsageError, VerificationError
from qwd.printable import printable
from qwd.quantize.backend import NotQuantizableError
from qwd.quantize.folding import deploy
from qwd.quantize.schemes import AO_STATIC, INTEGER_KINDS, Scheme
from qwd.report.accuracies import Options, calibration_batches
from qwd.report.build import verified
from qwd.report.figures import ModelReport
from qwd.report.remedies import remedies
from qwd.report.sensitivity import sensitivity
from qwd.report.subject import Subject
from qwd.report.watching import Watcher
from qwd.setting import checked

LIMIT = parsing.number(least=0, most=100)
SIMULATED = "simulated"
"""the backend on which single parts of a network can be left in float"""


@dataclass(frozen=True, kw_only=True)
class Studies:
    """What to do beyond measuring the schemes that were asked for."""

    sensitivity_n: int | None = None
    """validation images on which every layer is tried; None: no sensitivity"""
    fix_pp: float | None = None
    """drop beyond which remedies are tried; None: no remedies"""
    watcher: Watcher

    @classmethod
    def read(
        cls, sensitivity: bool, sensitivity_n: Any, fix: Any, watcher: Watcher | None
    ) -> "Studies":
        """From options as they are given; UsageError for a value that is out of bounds."""
        n = checked("sensitivity_n", parsing.integer(least=1), sensitivity_n)
        return cls(
            sensitivity_n=n if sensitivity else None,
            fix_pp=checked("fix", parsing.optional(LIMIT), fix),
            watcher=watcher or Watcher(),
        )

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do."""
        return self.sensitivity_n is not None or self.fix_pp is not None

    def check(self, sources: Iterable[Any], given: Mapping[str, Any], has_data: bool) -> None:
        """UsageError for a source that could not be studied, before any work."""
        if not self.wanted:
            return
        for source in sources:
            if isinstance(source, nn.Module):
                name, known = type(source).__name__, has_data
            else:
                path = Path(source)
                name, known = path.name, not os.path.isfile(path) or (has_data and "model" in given)
            if not known:
                raise UsageError(
                    f"{printable(name)}: sensitivity and remedies need the network and its images: "
                    "give --model and --data"
                )


def studied(
    model: ModelReport, subject: Subject, options: Options, studies: Studies
) -> ModelReport:
    """``model``, the report on ``subject``, with the studies that are asked for.

    Of the first scheme with activations among those of the report, else of ao-static. What cannot
    be studied is named in the report's warnings.
    """
    accuracy = model.float_accuracy
    if not studies.wanted or subject.model is None or subject.data is None or accuracy is None:
        return model
    scheme = next((s for s in options.schemes if s.activation_bits is not None), AO_STATIC)
    network = verified(deploy(subject.model.cpu()), subject.model, subject.data).module
    calibration = calibration_batches(subject.data, options.calibration_n)
    warnings = list(model.warnings)
    if studies.sensitivity_n is not None:
        try:
            found = sensitivity(
                network,
                replace(scheme, backend=SIMULATED, engine=None),
                subject.data,
                calibration,
                n=studies.sensitivity_n,
                device=options.device,
                watcher=studies.watcher,
            )
            model = replace(model, sensitivity=found)
        except (NotQuantizableError, VerificationError) as error:
            warnings.append(f"no sensitivity: {error}")
        finally:
            studies.watcher.ended()
    if studies.fix_pp is not None:
        try:
            tried, said = remedies(
                network,
                scheme,
                subject.data,
                calibration,
                limit_pp=studies.fix_pp,
                test_accuracy=accuracy,
                device=options.device,
                watcher=studies.watcher,
            )
            hint = qat_command(subject, scheme) if tried.entries else None
            model = replace(model, remedies=replace(tried, hint=hint))
            warnings += [text for text in said if text not in warnings]
        except (NotQuantizableError, VerificationError) as error:
            warnings.append(f"no remedies: {error}")
        finally:
            studies.watcher.ended()
    return replace(model, warnings=tuple(warnings))


def qat_command(subject: Subject, scheme: Scheme) -> str | None:
    """The quantization-aware training of a run for ``scheme``; None where there is none."""
    trainable = scheme.kind in INTEGER_KINDS and scheme.activation_bits == 8
    if subject.path is None or subject.config is None or subject.config.qat or not trainable:
        return None
    options = {
        "--from": (subject.path, None),
        "--bits": (str(scheme.weight_bits), "8"),
        "--weights": (scheme.kind, "affine"),
        "--granularity": (scheme.granularity, "tensor"),
    }
    words = [(name, value) for name, (value, usual) in options.items() if value != usual]
    return shlex.join(["qwd", "train", "--qat", *(word for pair in words for word in pair)])
