"""`qwd.export.export`: from a run or a checkpoint to a checked file."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qwd import parsing
from qwd.errors import InputError, StorageError, UsageError, VerificationError
from qwd.export.aware import own_scheme, trained
from qwd.export.figures import Agreement, Exported
from qwd.export.formats import format_called, scheme_for
from qwd.export.latency import latencies
from qwd.export.metadata import as_texts, metadata
from qwd.export.program import Program
from qwd.export.promise import Promise, promise
from qwd.export.target import target
from qwd.files import write_atomically
from qwd.quantize.backend import NotQuantizableError, QuantizedNetwork, quantize
from qwd.quantize.folding import Deployed, deploy
from qwd.quantize.schemes import AO_DEFAULT, Scheme
from qwd.registry import resolve
from qwd.report.accuracies import (
    CALIBRATION_N,
    SAME_CLASS,
    calibration_batches,
    disagreement,
)
from qwd.report.build import verified
from qwd.report.function import finite
from qwd.report.subject import Subject, Subjects
from qwd.setting import checked
from qwd.train.data import Data
from qwd.train.devices import device_called
from qwd.train.evaluation import accuracy, logits
from qwd.train.seeding import reproducible


def export(
    path: str | Path,
    *,
    format: str = "onnx",
    scheme: str | None = None,
    out: str | Path | None = None,
    calibration_n: int = CALIBRATION_N,
    device: str = "auto",
    key: str | None = None,
    given: Mapping[str, Any] | None = None,
    batch_sizes: Sequence[int] = (),
    repetitions: int = 20,
    on_step: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Quantize a run or a checkpoint and write it as a file to deploy, once it is checked.

    BatchNorm is folded and branches are fused; the network is quantized by ``scheme`` (default:
    the format's own), put into the format, read back from those bytes alone and run on the test
    split. The accuracy found has to be within 0.1 pp of the report's: that in the run's
    ``report.json`` where the scheme is in it, else the one that the report's own code finds now. A
    quantization-aware run is written to ONNX with the grids that it was trained with; its report is
    of torch.ao's kernels, from which the file may be one image apart.

    ``path`` is a run folder, or a checkpoint whose ``model`` and ``data`` are in ``given``, as
    `qwd.report` takes them, together with ``key``. ``format`` is onnx, pt2 or safetensors; ``out``
    the file (default: ``model-<scheme>.<format>`` in the run folder). ``calibration_n`` training
    images set the ranges of activations. With ``batch_sizes`` the file is timed against float,
    ``repetitions`` times at each. ``on_step`` hears what is being done.

    Raises UsageError (a missing extra included), InputError, StorageError, and VerificationError
    where a check fails; nothing is written then.
    """
    into = format_called(format)
    checked("calibration_n", parsing.integer(least=1), calibration_n)
    checked("repetitions", parsing.integer(least=1), repetitions)
    for size in batch_sizes:
        checked("batch_sizes", parsing.integer(least=1), size)
    own = own_scheme(Path(path), into) if scheme is None else None
    wanted = own or scheme_for(into, scheme)
    kind: type[Program] = resolve(into.program)
    file = target(Path(path), into, wanted, out)
    run_on = device_called(device)
    with reproducible(run_on, None):
        subjects = Subjects(given or {}, key)
        subject = subjects.open(Path(path))
        model, data = subject.model, subject.data
        if model is None or data is None:
            raise UsageError(f"{path}: export runs the network, so give --model and --data")
        labels = data.test.labels
        deployed = verified(deploy(model), model, data)
        network = deployed.module.cpu()
        in_float = logits(model.to(run_on), data.test, run_on)
        if not finite(in_float):
            raise InputError(f"{path}: the network's outputs are not finite")
        for name, weight in network.named_parameters():
            if not finite(weight):
                raise InputError(f"{path}: {name} has elements that are not finite")
        on_step(f"quantizing as {wanted.name}")
        calibration = calibration_batches(data, calibration_n)
        made, reported = networks(subject, network, wanted, calibration)
        found = outputs_of(made, data, run_on)
        theirs = found if reported is made else outputs_of(reported, data, run_on)
        promised = promise(
            subject,
            data,
            wanted.name if own is None else replace(wanted, backend="ao").name,
            float_accuracy=accuracy(in_float, labels),
            measured=accuracy(theirs, labels),
            usual_calibration=wanted.activation_bits is None or calibration_n == CALIBRATION_N,
            same_runtime=reported is made,
        )
        program = kind(made, network, wanted, calibration[0])
        facts = metadata(
            subject,
            data,
            wanted,
            made.description,
            model=subject.config.model if subject.config else str(subjects.given["model"]),
            float_accuracy=accuracy(in_float, labels),
            accuracy=accuracy(found, labels),
            scales=program.grids(),
        )
        content = program.content(as_texts(facts))
        on_step(f"checking {len(content):,} bytes on {len(labels):,} test images")
        place = made.backend.device or run_on
        outputs = logits(program.reopened(content).to(place), data.test, place)
        if not finite(outputs):
            raise VerificationError("nothing was written: the file's outputs are not finite")
        read_back = accuracy(outputs, labels)
        for figure in (facts["accuracy"], accuracy(theirs, labels)):
            replace(promised, accuracy=figure, source="measured now").check(read_back)
        agreement = with_ao(network, wanted, calibration, data, outputs)
        exported = Exported(
            path=str(file),
            format=into.name,
            scheme=wanted.name,
            model=facts["model"],
            data=data.name,
            split=data.test_name,
            n=len(labels),
            float_accuracy=facts["float_accuracy"],
            report=promised,
            accuracy=read_back,
            difference_pp=promised.check(read_back),
            agree_n=same_class(outputs, theirs),
            ao=agreement,
            bytes=len(content),
            float_bytes=len(program.float_content()),
            sha256=hashlib.sha256(content).hexdigest(),
            metadata=facts,
            warnings=tuple(notes(subject, deployed, made, promised, agreement)),
        )
        _write(file, content)
        if not batch_sizes:
            return exported
        on_step(f"timing, {repetitions} repetitions")
        times = latencies(program, content, data.train, batch_sizes, repetitions)
        return replace(exported, benchmark=times)


def networks(
    subject: Subject, network: nn.Module, scheme: Scheme, calibration: Sequence[Tensor]
) -> tuple[QuantizedNetwork, QuantizedNetwork]:
    """What is written, and what the report measures; but for trained grids they are the same.

    ``network`` is the subject's, deployed and in float. Raises InputError where the backend cannot
    carry it.
    """
    if scheme.qat:
        return trained(subject, calibration[0])
    try:
        made = quantize(network, scheme, calibration)
    except NotQuantizableError as error:
        raise InputError(f"{subject.path}: no export as {scheme.name}: {error}") from error
    return made, made


def outputs_of(made: QuantizedNetwork, data: Data, device: torch.device) -> Tensor:
    """Outputs on the test split, float32 [n, classes], on ``device`` where the backend is free."""
    device = made.backend.device or device
    return logits(made.to(device), data.test, device)


def notes(
    subject: Subject,
    deployed: Deployed,
    made: QuantizedNetwork,
    promised: Promise,
    ao: Agreement | None,
) -> Iterator[str]:
    """What a reader of the figures has to know."""
    assert subject.data is not None
    yield from (*subject.data.notes, *deployed.warnings, *made.description.warnings)
    if promised.note is not None:
        yield promised.note
    share = ao.n / len(subject.data.test) if ao is not None else 1
    if ao is not None and ao.scheme != AO_DEFAULT.name and share < SAME_CLASS:
        yield disagreement(promised.scheme, ao.scheme, share)
    if subject.twin is not None and not promised.scheme.endswith("-qat"):
        yield (
            "the run was quantization-aware, and this file is not: its float weights were "
            "quantized after training; --format onnx without --scheme writes what was trained"
        )


def with_ao(
    network: nn.Module, scheme: Scheme, calibration: Sequence[Tensor], data: Data, outputs: Tensor
) -> Agreement | None:
    """On how many test images torch.ao predicts the class of ``outputs``, float32 [n, classes].

    None for weights alone, and where torch.ao does not run the scheme.
    """
    if scheme.activation_bits is None or scheme.qat:
        return None
    twin = replace(scheme, backend="ao", engine=None)
    try:
        made = quantize(network, twin, calibration)
    except (NotQuantizableError, VerificationError):
        return None
    theirs = logits(made, data.test, made.backend.device or torch.device("cpu"))
    return Agreement(scheme=twin.name, n=same_class(outputs, theirs))


def same_class(some: Tensor, other: Tensor) -> int:
    """In how many rows of [n, classes] both have their largest entry at the same place."""
    return int((some.argmax(dim=1) == other.argmax(dim=1)).sum())


def _write(path: Path, content: bytes) -> None:
    """Put the file in place, or leave the former one there."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)
        if temporary.read_bytes() != content:
            raise StorageError(f"{path} does not read back as it was written")

    write_atomically(path, write)
