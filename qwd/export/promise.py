"""What the report says a scheme's accuracy is, and whether a file keeps to it."""

from dataclasses import dataclass, replace
from pathlib import Path

from qwd.errors import InputError, VerificationError
from qwd.report.build import data_info
from qwd.report.figures import ModelReport
from qwd.report.load import load_report
from qwd.report.subject import Subject
from qwd.train.data import Data
from qwd.train.layout import REPORT

TOLERANCE_PP = 0.1
"""how far the accuracy of a file may be from the report's, in percentage points"""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """The report's accuracy under a scheme."""

    scheme: str
    accuracy: float
    source: str
    """``report.json``, or ``measured now``"""
    note: str | None = None
    """why the report that there is was not used"""
    tolerance_pp: float = TOLERANCE_PP
    """how far the file may be from it"""

    def check(self, accuracy: float) -> float:
        """``accuracy`` less the report's, in pp; VerificationError beyond the tolerance."""
        difference = 100 * (accuracy - self.accuracy)
        # The tolerance itself passes, however the difference of two fractions is rounded.
        if abs(difference) > self.tolerance_pp + 1e-9:
            again = ""
            if self.source == REPORT:
                again = (
                    "; if its calibration was another one, "
                    f"`qwd quantize-report --scheme {self.scheme}` measures it anew"
                )
            raise VerificationError(
                f"nothing was written: the file's accuracy is {accuracy:.2%}, that of "
                f"{self.scheme} in the report {self.accuracy:.2%} ({self.source}), more than "
                f"{self.tolerance_pp:.2g} pp apart{again}"
            )
        return difference


def promise(
    subject: Subject,
    data: Data,
    scheme: str,
    *,
    float_accuracy: float,
    measured: float,
    usual_calibration: bool,
    same_runtime: bool,
) -> Promise:
    """The accuracy of ``scheme`` in the run's ``report.json``, else ``measured``, found just now.

    A report counts where it was made of these weights and these images. Where the calibration is
    not the usual one, the accuracy found now with the same calibration is what counts. Where the
    report's runtime is not the file's, whose kernels round in their own ways, one image is allowed:
    of few images 0.1 pp would be none.
    """
    tolerance = TOLERANCE_PP if same_runtime else max(TOLERANCE_PP, 100 / len(data.test))
    stored, note = _stored(subject, data, float_accuracy) if subject.config else (None, None)
    if stored is None or scheme not in stored.schemes or not usual_calibration:
        found = Promise(scheme=scheme, accuracy=measured, source="measured now", note=note)
    else:
        found = Promise(scheme=scheme, accuracy=stored.schemes[scheme].accuracy, source=REPORT)
    return replace(found, tolerance_pp=tolerance)


def _stored(
    subject: Subject, data: Data, float_accuracy: float
) -> tuple[ModelReport | None, str | None]:
    """The report in the run's folder if it is about this subject, and if not, why."""
    file = Path(str(subject.path), REPORT)
    if not file.is_file():
        return None, None
    try:
        models = load_report(file).models
    except InputError as error:
        return None, f"{error}; its accuracy is measured anew"
    if len(models) != 1 or not _is_about(models[0], subject, data, float_accuracy):
        return None, f"{file} is about other weights or images: accuracy is measured anew"
    return models[0], None


def _is_about(model: ModelReport, subject: Subject, data: Data, float_accuracy: float) -> bool:
    if model.data != data_info(data) or model.float_accuracy is None:
        return False
    # Biases and statistics of BatchNorm are not in a report; what they do to the accuracy is.
    if 100 * abs(model.float_accuracy - float_accuracy) > TOLERANCE_PP:
        return False
    ends = {t.name: (t.figures.shape, t.figures.a, t.figures.b) for t in model.tensors}
    return ends == {
        name: (tuple(w.shape), w.min().item(), w.max().item())
        for name, w in subject.weights().items()
    }
