"""What quantization-aware training recovers of what post-training quantization loses.

    python -m benchmarks.qat_gain
    python -m benchmarks.qat_gain --data imagefolder:DIR --image-size 16 --batch-size 128

For each model and seed: a training in float, a quantization-aware one that starts from it at its
tenth rate, and, as a control, one in float from the same start with the same rate and epochs. All
are quantized to the same scheme, scale = (b - a) / (2^bits - 1) per tensor and 8-bit activations,
on integer kernels and the test split. Differences are paired by seed, with their 95 % t interval.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from qwd.config import TrainConfig
from qwd.quantize.schemes import AO_STATIC, expand
from qwd.report.entry import report
from qwd.report.figures import Interval, ModelReport
from qwd.report.intervals import interval
from qwd.sweep.reading import seeds
from qwd.train.session import train
from qwd.train.start import continued


def main(arguments: Sequence[str]) -> None:
    """Train, quantize, print a table per model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--models", default="repvgg,mobilenet")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--seeds", type=seeds, default="5", help="a count, or a list as 0,3,8..15")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--qat-epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--wd", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args(arguments)
    for model in asked.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            measure(model, asked, Path(folder))


def measure(model: str, asked: argparse.Namespace, folder: Path) -> None:
    """All seeds of one model."""
    (scheme,) = expand([AO_STATIC], [asked.bits])
    rows: dict[str, list[float]] = {"float": [], "PTQ": [], "tuned, PTQ": [], "QAT": []}
    for seed in asked.seeds:
        start, tuned, aware = (folder / f"{kind}-{seed}" for kind in ("float", "tuned", "qat"))
        config = TrainConfig(
            model=model,
            data=asked.data,
            image_size=asked.image_size,
            wd=asked.wd,
            epochs=asked.epochs,
            batch_size=asked.batch_size,
            seed=seed,
            threads=asked.threads,
        )
        train(config, out=start)
        more = {"from_": str(start), "epochs": asked.qat_epochs, "threads": asked.threads}
        train(continued(more), out=tuned)
        train(continued({**more, "qat": True, "bits": asked.bits}), out=aware)
        made = report([start, tuned, aware], schemes=scheme.name)
        first, second, third = made.models
        assert first.float_accuracy is not None
        rows["float"].append(first.float_accuracy)
        rows["PTQ"].append(_accuracy(first, scheme.name))
        rows["tuned, PTQ"].append(_accuracy(second, scheme.name))
        rows["QAT"].append(_accuracy(third, f"{scheme.name}-qat"))
        print(f"{model} seed {seed} done", file=sys.stderr)
    length = f"{asked.epochs} + {asked.qat_epochs} epochs, {len(asked.seeds)} seeds"
    print(f"{model} on {asked.data}, {scheme.name}, wd {asked.wd:g}, {length}")
    for name, values in rows.items():
        each = ", ".join(f"{100 * value:.2f}" for value in values)
        print(f"  {name:<12} {100 * sum(values) / len(values):6.2f} %   ({each})")
    for other in ("PTQ", "tuned, PTQ"):
        pairs = zip(rows["QAT"], rows[other], strict=True)
        found = interval([100 * (qat - ptq) for qat, ptq in pairs])
        print(f"  QAT less {other}: {_shown(found)}")


def _accuracy(model: ModelReport, scheme: str) -> float:
    return model.schemes[scheme].accuracy


def _shown(found: Interval | None) -> str:
    if found is None or found.low is None or found.high is None:
        return f"{found.mean:+.2f} pp, no interval for one seed" if found else "-"
    return f"{found.mean:+.2f} pp, 95 % interval {found.low:+.2f} to {found.high:+.2f}"


if __name__ == "__main__":
    main(sys.argv[1:])
