"""Which models belong together: by their settings, the seed or the decay aside."""

from collections.abc import Sequence

from qwd.config import DECAY_SETTINGS, MACHINE_SETTINGS
from qwd.report.figures import ModelReport
from qwd.setting import short

Key = tuple[tuple[str, str], ...]
UNSAID = ("None", "False")
"""Values of settings that do not apply, and of flags that are not set."""


def settings(model: ModelReport) -> Key:
    """What a run was trained with, seed aside; a checkpoint without settings stands alone."""
    if model.config is None:
        return (("name", model.name), ("path", str(model.path)))
    # Where a run started from differs with its seed.
    immaterial = ("seed", "from", *MACHINE_SETTINGS)
    return tuple((k, str(v)) for k, v in model.config.items() if k not in immaterial)


def settings_but_decay(model: ModelReport) -> Key:
    """The same without the decay, and the images that accuracies were measured on."""
    digest = model.data.sha256 if model.data else ""
    if model.config is None:
        return (("data", digest),)
    rest = [(k, v) for k, v in settings(model) if k not in DECAY_SETTINGS]
    return (*rest, ("digest", digest))


def labels(keys: Sequence[Key]) -> list[str]:
    """A name per group from the settings in which the runs among them differ."""
    runs = [dict(key) for key in keys if "name" not in dict(key)]
    differing = {n for run in runs for n in run if len({r.get(n) for r in runs}) > 1}

    def label(key: Key) -> str:
        entries = dict(key)
        if "name" in entries:
            return entries["name"]
        # A setting that does not apply is None.
        shown = [n for n in entries if (n in differing and entries[n] not in UNSAID) or n == "wd"]
        return ", ".join(_setting(name, entries[name]) for name in shown)

    return [label(key) for key in keys]


def _setting(name: str, value: str) -> str:
    """A setting in a label: a flag by its name alone."""
    plain = name.replace("_", "-")
    if value == "True":
        return plain
    return f"{plain} {short(float(value)) if name == 'wd' else value}"
