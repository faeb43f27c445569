"""One trial of a search: a training, and its int8 accuracy on the validation split."""

from dataclasses import dataclass
from pathlib import Path

import torch

from qwd.config import TrainConfig
from qwd.errors import DivergedError, InputError, VerificationError
from qwd.quantize import qat
from qwd.quantize.backend import NotQuantizableError, QuantizedNetwork, quantize
from qwd.quantize.folding import deploy
from qwd.quantize.schemes import AO_STATIC
from qwd.report.build import calibration_batches, verified
from qwd.report.function import finite
from qwd.report.subject import Subject, Subjects
from qwd.sweep.found import check_weights
from qwd.sweep.work import throw_away
from qwd.train.awareness import qat_scheme
from qwd.train.devices import device_called
from qwd.train.evaluation import accuracy, logits
from qwd.train.layout import WEIGHTS, is_run
from qwd.train.seeding import reproducible
from qwd.train.session import train


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a trial is worth, on the validation split."""

    int8_accuracy: float
    """under ao-static, or under the scheme that a quantization-aware training is for"""
    float_accuracy: float


def score(folder: Path, config: TrainConfig, calibration_n: int, subjects: Subjects) -> Score:
    """Train in ``folder``, from the last epoch that is stored there, and measure.

    The test split is not touched. What cannot be read is computed again. Raises DivergedError,
    also where outputs are not finite, VerificationError where the network cannot be quantized,
    and as `qwd.train.train`.
    """
    _trained(folder, config)
    device = device_called(config.device)
    with reproducible(device, config.threads):
        return _measured(subjects.open(folder), config, calibration_n, device)


def _trained(folder: Path, config: TrainConfig) -> None:
    if is_run(folder):
        try:
            check_weights(folder)
        except InputError:
            (folder / WEIGHTS).unlink()  # its checkpoint gives them again
        try:
            train(config, out=folder, resume=True)
            return
        except InputError as error:
            # Its own files, or what it is trained on?
            if str(folder) not in str(error):
                raise
    throw_away(folder)
    train(config, out=folder)


def _measured(
    subject: Subject, config: TrainConfig, calibration_n: int, device: torch.device
) -> Score:
    model, data = subject.model, subject.data
    assert model is not None
    assert data is not None
    split = data.validation
    reference = logits(model.to(device), split, device)
    made = _quantized(subject, config, calibration_n)
    device = made.backend.device or device
    outputs = logits(made.to(device), split, device)
    if not finite(reference) or not finite(outputs):
        raise DivergedError("the outputs of the trained network are not finite")
    return Score(
        int8_accuracy=accuracy(outputs, split.labels),
        float_accuracy=accuracy(reference, split.labels),
    )


def _quantized(subject: Subject, config: TrainConfig, calibration_n: int) -> QuantizedNetwork:
    assert subject.model is not None
    assert subject.data is not None
    try:
        if config.qat:
            return qat.convert(subject.twin, qat_scheme(config)).network
        model = subject.model.cpu()
        deployed = verified(deploy(model), model, subject.data).module
        return quantize(deployed, AO_STATIC, calibration_batches(subject.data, calibration_n))
    except NotQuantizableError as error:
        raise VerificationError(f"{config.model} has no int8 accuracy: {error}") from error
