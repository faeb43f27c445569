"""Settings of the weight decay: all that may differ between runs read against each other."""

from dataclasses import dataclass

from qwd import parsing
from qwd.registry import FORMS
from qwd.setting import Only, setting


@dataclass(frozen=True, kw_only=True)
class DecaySettings:
    """Who is decayed, by how much, when."""

    wd: float = setting(1e-4, parsing.number(least=0), "weight decay coefficient")
    form: str = setting(
        None,
        parsing.name_in(FORMS),
        "decay form (`qwd list forms`); default: l2, or decoupled with adamw",
    )
    cautious: bool = setting(
        False,
        parsing.flag,
        "decay only where the step shrinks the weight anyway",
        only=Only("form", ("decoupled",), False),
    )
    lr_corrected: str = setting(
        None,
        parsing.text,
        "AdamC's lr_t^2 / lr_max in place of lr_t: `auto` for weights followed by normalisation, "
        "or a regular expression over names",
        only=Only("form", ("decoupled",), None),
    )
    proximal: bool = setting(
        False,
        parsing.flag,
        "soft-threshold after the step, which gives exact zeros",
        only=Only("form", ("l1",), False),
    )
    no_decay: tuple[str, ...] = setting(
        (),
        parsing.patterns,
        "exclude parameters whose name matches this regular expression",
        repeatable="REGEX",
    )
    decay: tuple[str, ...] = setting(
        (),
        parsing.assignments(
            "PATTERN=VALUE, a regular expression and a factor of at least 0",
            parsing.patterns,
            parsing.number(least=0),
        ),
        "multiply the coefficient of matching parameters, excluded ones included; PATTERN is a "
        "regular expression over names, or @bias, @norm, @embedding, @depthwise, @weight",
        repeatable="PATTERN=VALUE",
    )
    decay_bias: bool = setting(False, parsing.flag, "decay biases too")
    decay_norm: bool = setting(False, parsing.flag, "decay normalisation parameters too")
    decay_embedding: bool = setting(True, parsing.flag, "decay embeddings too")
    wd_schedule: str = setting(
        "constant",
        parsing.one_of("constant", "linear", "cosine", "proportional", "piecewise"),
        "the coefficient over time: constant, linear or cosine to --wd-end, proportional to the "
        "learning rate, or piecewise by --wd-at",
    )
    wd_end: float = setting(
        None,
        parsing.number(least=0),
        "factor of --wd at the last step",
        only=Only("wd_schedule", ("linear", "cosine"), 0.0),
    )
    wd_at: tuple[str, ...] = setting(
        None,
        parsing.assignments(
            "EPOCH=FACTOR entries with commas, for example 0=1,30=0.1",
            parsing.number(least=0),
            parsing.number(least=0),
            commas=True,
        ),
        "EPOCH=FACTOR,...: factor of --wd from each epoch on, 1 before the first",
        only=Only("wd_schedule", ("piecewise",), None),
    )
    wd_until: float | None = setting(
        None, parsing.number(above=0), "epochs after which decay is off"
    )
