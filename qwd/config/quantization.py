"""Settings of quantization-aware training, and of the run that it starts from."""

from dataclasses import dataclass

from qwd import parsing
from qwd.setting import Only, setting


def _for_qat(default: object) -> Only:
    return Only("qat", (True,), default)


@dataclass(frozen=True, kw_only=True)
class QuantizationSettings:
    """Which grid the training is aware of, and when its ranges come to rest."""

    from_: str | None = setting(
        None,
        parsing.text,
        "a run folder to start from: its weights, and its settings where none are given; 10 "
        "epochs at a tenth of its rate unless asked otherwise",
    )
    qat: bool = setting(
        False,
        parsing.flag,
        "quantization-aware training (torch.ao FX): weights and 8-bit activations on their grids",
    )
    bits: int = setting(
        None, parsing.integer(least=2, most=8), "width of the weights", only=_for_qat(8)
    )
    weights: str = setting(
        None,
        parsing.one_of("affine", "symmetric"),
        "affine, scale = (b-a)/255, or symmetric, torch's default",
        only=_for_qat("affine"),
    )
    granularity: str = setting(
        None,
        parsing.one_of("tensor", "channel"),
        "one range of weights per tensor, or per output channel",
        only=_for_qat("tensor"),
    )
    observer_epochs: int = setting(
        None,
        parsing.integer(least=1),
        "epochs after which the ranges are frozen; default: 4 after --from, else 3/4 of --epochs",
        only=_for_qat(None),
    )
    norm_epochs: int = setting(
        None,
        parsing.integer(least=1),
        "epochs after which the statistics of BatchNorm are frozen; default: 3 after --from, else "
        "3/4 of --epochs",
        only=_for_qat(None),
    )
    qat_wd: str | None = setting(
        None,
        parsing.coefficient_or_factor,
        "decay while quantization-aware: a coefficient, x0.1 for a tenth of --wd, or 0; default: "
        "--wd",
        only=_for_qat(None),
    )
