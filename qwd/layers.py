"""Where settings come from: options over ``QWD_*`` variables over a YAML file over the defaults."""

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qwd.config import TrainConfig, fields
from qwd.errors import InputError, UsageError, reason
from qwd.registry import suggestion
from qwd.setting import checked, option_name, plain_name, variable_name

LARGEST = 1 << 20
"""bytes of a file of settings; reading one takes seconds"""

# Variables that are no settings of a run, read where they are used.
OTHER_VARIABLES = {"QWD_CACHE_DIR"}


def from_layers(
    options: Mapping[str, Any],
    environment: Mapping[str, str],
    file: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """Merge options over ``QWD_*`` variables over a file's settings over the defaults.

    Absent options are left out or None. An unknown key in any layer is a UsageError with the
    nearest valid name.
    """
    return TrainConfig(**values_from(options, environment, file))


def values_from(
    options: Mapping[str, Any],
    environment: Mapping[str, str],
    file: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The settings that any layer gives, each checked by itself; see `from_layers`."""
    return merged(options, environment_settings(environment), file, read_all)


def merged(
    options: Mapping[str, Any],
    variables: Mapping[str, Any],
    file: Mapping[str, Any] | None,
    read: Callable[[dict[str, Any], Callable[[str], str]], dict[str, Any]],
) -> dict[str, Any]:
    """What ``read`` makes of a file, of variables over it, and of options over both.

    It is given the values of a layer, without those that are None, and what errors call a name.
    """
    values: dict[str, Any] = {}
    for layer, label in (
        (dict(file or {}), lambda name: f"{name} in the file"),
        (variables, variable_name),
        (dict(options), option_name),
    ):
        values |= read({n: raw for n, raw in layer.items() if raw is not None}, label)
    return values


def read_all(raw: Mapping[str, Any], label: Callable[[str], str] | None = None) -> dict[str, Any]:
    """The checked values of some settings by name; UsageError as `read`, or for unknown names.

    ``label`` is what errors call a setting: its option, where nothing else is given.
    """
    label = label or option_name
    known = {plain_name(f.name): f for f in fields()}
    for name in raw:
        if plain_name(str(name)) not in known:
            raise UsageError(f"unknown setting {name!r}: {suggestion(str(name), known)}")
    found = {known[plain_name(name)]: (name, value) for name, value in raw.items()}
    return {
        field.name: checked(label(name), field.metadata["parse"], value)
        for field, (name, value) in found.items()
    }


def environment_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that ``QWD_*`` variables give; an unknown variable is a UsageError."""
    known = {variable_name(f.name): f.name for f in fields()}
    found = {}
    for variable, value in environment.items():
        if not variable.startswith("QWD_") or variable in OTHER_VARIABLES:
            continue
        if variable not in known:
            raise UsageError(f"unknown variable {variable}: {suggestion(variable, known)}")
        found[known[variable]] = value
    return found


def _strict(yaml: Any) -> Any:
    """PyYAML's safe loader without what it does in silence.

    It takes the last of two equal keys, and reads 010 as 8, 1:30 as 90, 1_0 as 10 and some texts as
    dates: such numbers stay text here, as on the command line.
    """

    class Strict(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):  # a kilobyte of them is a list of billions
                raise yaml.YAMLError("it has aliases (*name), which settings have no use for")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = Counter(repr(self.construct_object(key, deep=True)) for key, _ in node.value)
            for key, times in keys.most_common(1):
                if times > 1:
                    raise yaml.YAMLError(f"{key} is given twice")
            return super().construct_mapping(node, deep)

    tag = "tag:yaml.org,2002:"
    kept = {tag + "null", tag + "bool"}
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers
    Strict.yaml_implicit_resolvers = {
        first: [(name, form) for name, form in found if name in kept]
        for first, found in resolvers.items()
    }
    digits = list("+-.0123456789")
    Strict.add_implicit_resolver(tag + "int", re.compile(r"[+-]?(0|[1-9][0-9]*)$"), digits)
    point = r"([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
    Strict.add_implicit_resolver(tag + "float", re.compile(rf"[+-]?{point}$"), digits)
    return Strict


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; InputError when it cannot be read or is no mapping."""
    import yaml

    if not os.path.isfile(path):
        raise InputError(f"cannot read {path}: it is no file")
    try:
        if (size := os.path.getsize(path)) > LARGEST:
            raise InputError(f"{path} has {size:,} bytes; expected at most {LARGEST:,} of settings")
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_strict(yaml))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or reason(error)}") from None
    except RecursionError:
        raise InputError(f"{path} is not valid YAML: it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {path}: {error}") from None
    # PyYAML lets through what its constructors of dates, numbers and tags raise.
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise InputError(f"{path} is not valid YAML: {reason(error)}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold settings as `name: value` lines")
    return content
