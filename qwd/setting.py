"""What a setting is: a field with its parser, its help, and where it applies."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from qwd import parsing
from qwd.errors import UsageError
from qwd.registry import Registry


@dataclasses.dataclass(frozen=True)
class Only:
    """A setting that means something for some values of another one alone; elsewhere it is None.

    ``default`` is its value where it applies and is not given. ``registry`` is where the values
    are names of: what others registered there may use every setting.
    """

    field: str
    values: tuple[Any, ...]
    """True alone for an option without a value"""
    default: Any
    registry: Registry | None = None

    def __str__(self) -> str:
        """``--form decoupled`` or ``--qat``."""
        name = option_name(self.field)
        return name if self.values == (True,) else f"{name} {either(self.values)}"

    def applies(self, chosen: Any) -> bool:
        """Whether the setting means something where ``field`` is ``chosen``."""
        foreign = self.registry is not None and not self.registry.ships(chosen)
        return chosen in self.values or foreign


def setting(
    default: Any,
    parse: parsing.Parser,
    help: str,
    *,
    shared: bool = False,
    repeatable: str | None = None,
    only: Only | None = None,
) -> Any:
    """A field with its parser and its line of help.

    ``shared`` ones are options of reports too; ``repeatable`` is what one of many values is called.
    """
    parse = parsing.optional(parse) if default is None else parse
    metadata = {
        "parse": parse,
        "help": help,
        "shared": shared,
        "repeatable": repeatable,
        "only": only,
    }
    return dataclasses.field(default=default, metadata=metadata)


def plain_name(field_name: str) -> str:
    """What files call a setting: ``from_`` is ``from``, which Python does not allow."""
    return field_name.rstrip("_")


def option_name(field_name: str) -> str:
    """``lr_schedule`` as the option ``--lr-schedule``."""
    return "--" + plain_name(field_name).replace("_", "-")


def variable_name(field_name: str) -> str:
    """``lr_schedule`` as the variable ``QWD_LR_SCHEDULE``."""
    return "QWD_" + plain_name(field_name).upper()


def read(field: dataclasses.Field[Any], raw: Any) -> Any:
    """The checked value of one setting; a UsageError names option, value and what is right."""
    return checked(option_name(field.name), field.metadata["parse"], raw)


def checked(option: str, parse: parsing.Parser, raw: Any) -> Any:
    """``parse(raw)``, or a UsageError that names the option, the value and what would be right."""
    try:
        return parse(raw)
    except ValueError as error:
        raw = raw[0] if isinstance(raw, tuple) and len(raw) == 1 else raw
        raise UsageError(f"{option} {_typed(raw)}: expected {error}".replace("\n", " ")) from None


def _typed(raw: Any) -> str:
    """A wrong value as an error repeats it."""
    try:
        return repr(raw)
    except (ValueError, RecursionError):  # an int of more digits than Python prints
        return f"of type {type(raw).__name__}"


def applied(field: dataclasses.Field[Any], of: Any) -> Any:
    """The value of a setting in ``of``, or its default, where it applies there; None elsewhere.

    Raises UsageError where another value than the default is given and does not apply.
    """
    value, only = getattr(of, field.name), field.metadata["only"]
    if only is None:
        return value
    chosen = getattr(of, only.field)
    if only.applies(chosen):
        return only.default if value is None else value
    if value not in (None, only.default):
        given = "" if value is True else f" {plain(value)}"
        but = "" if chosen is False else f", not to {chosen}"
        raise UsageError(f"{option_name(field.name)}{given}: belongs to {only}{but}")
    return field.default


def either(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def plain(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, tuple):
        return ",".join(plain(item) for item in value)
    return short(value) if isinstance(value, float) else str(value)


def short(value: float) -> str:
    """A coefficient as people write it: 0.0001 is ``1e-4``."""
    mantissa, _, exponent = f"{value:e}".partition("e")
    digits = mantissa.rstrip("0").rstrip(".")
    return f"{digits}e{int(exponent)}" if value and int(exponent) < -2 else f"{value:g}"
