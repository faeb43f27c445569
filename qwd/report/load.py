"""Reading `report.json` back: strictly, because whoever wrote the file may not be qwd."""

import functools
import importlib.resources
import json
import math
import os
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from qwd.errors import InputError
from qwd.printable import printable
from qwd.report.figures import SCHEMA_VERSION, DecayAudit, Report
from qwd.train.layout import DECAY, REPORT

LARGEST = 1 << 28
"""bytes of a report; 50,000 tensors take a quarter of them"""
DEEPEST = 64
"""levels of nesting; only the free-form `config` can have more than a few"""


def load_report(path: str | Path) -> Report:
    """The report in a JSON file, or in ``report.json`` of a run or sweep folder.

    Raises InputError, which names the file, where it is missing, unreadable, not JSON, of another
    schema version, against the schema, or holds a number that is not finite.
    """
    path = Path(path)
    file = path / REPORT if os.path.isdir(path) else path
    shown = printable(str(file))
    try:
        if file.exists() and not file.is_file():
            raise ValueError("it is no file")
        if file.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        value = parse(file.read_bytes())
        validate(value)
    except FileNotFoundError:
        if file != path:
            command = printable(f"qwd quantize-report {shlex.quote(str(path))}")
            raise InputError(f"{shown} does not exist: `{command}` makes it") from None
        raise InputError(f"{shown} does not exist: expected a report or a run folder") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {shown}: {reason}, expected a report") from error
    except InputError as error:
        raise InputError(f"{shown}: {error}") from error
    return read_as(Report, value)


def load_audit(run: Path) -> DecayAudit | None:
    """The audit of the decay in a run folder; None where the run has none.

    Raises InputError, which names the file, where it is no such audit.
    """
    file = run / DECAY
    if not file.is_file():
        return None
    try:
        value = parse(file.read_bytes())
        _check(value, _validator("decay"))
    except (OSError, InputError) as error:
        raise InputError(f"{printable(str(file))}: {error}") from error
    return read_as(DecayAudit, value)


def parse(content: bytes) -> Any:
    """JSON as the standard has it: finite numbers, every key once, nesting within reason.

    Raises InputError.
    """
    try:
        value = json.loads(
            content,
            parse_constant=_not_finite,
            parse_float=_finite_float,
            parse_int=_finite_int,
            object_pairs_hook=_without_duplicates,
        )
        if _deeper_than(value, DEEPEST):
            raise RecursionError
    except RecursionError:
        raise InputError(f"not a report: nested more than {DEEPEST} levels deep") from None
    except ValueError as error:
        raise InputError(f"not a report, expected JSON: {_short(str(error))}") from error
    return value


def validate(value: Any) -> None:
    """Check what ``report.json`` holds against the published schema.

    Raises InputError with the first violation and its JSON path.
    """
    if not isinstance(value, dict) or "models" not in value:
        raise InputError("not a report: expected an object with `schema_version` and `models`")
    version = value.get("schema_version")
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        has = (
            f"schema version {_short(repr(version))}"
            if version is not None
            else "no schema_version"
        )
        raise InputError(f"the report has {has}; this qwd reads version {SCHEMA_VERSION}")
    _check(value, _validator())


def _check(value: Any, validator: Any) -> None:
    error = next(validator.iter_errors(value), None)
    if error is not None:
        raise InputError(f"{_short(error.json_path)}: {_short(error.message)}")


def schema() -> dict[str, Any]:
    """The JSON schema of `report.json`, as it ships in the package."""
    file = importlib.resources.files("qwd.report").joinpath("report.schema.json")
    return json.loads(file.read_text(encoding="utf-8"))


@functools.cache
def _validator(part: str | None = None) -> Any:
    """Of a report, or of a part that its schema defines."""
    from jsonschema import Draft202012Validator

    whole = schema()
    rule = {"$ref": f"#/$defs/{part}", "$defs": whole["$defs"]} if part else whole
    return Draft202012Validator(rule)


def _not_finite(text: str) -> NoReturn:
    raise InputError(f"the report holds a number that is not finite, {_short(text)}; expected null")


def _finite_float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text)


def _finite_int(text: str) -> int:
    # float() has no limit on digits, where int() has one.
    _finite_float(text)
    return int(text)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise InputError(f"the key {_short(twice)!r} stands twice in one object, expected it once")
    return found


def _deeper_than(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels + 1):
        inside = [item for item in level if isinstance(item, dict | list)]
        level = [x for item in inside for x in (item.values() if type(item) is dict else item)]
    return bool(level)


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= 160 else f"{text[:157]}..."


def read_as(kind: Any, value: Any) -> Any:
    """``value``, as JSON has it, as a data class or the type that one declares for a field.

    ``read_as(Report, parse(content))`` is the report in a file without the check against the
    schema, which is for files that qwd did not write itself; what such a file lacks is then a
    KeyError, TypeError, ValueError or AttributeError.
    """
    return _reader(kind)(value)


@functools.cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """What makes a value of this type; types are looked into once, there may be many values."""
    args, origin = get_args(kind), get_origin(kind)
    if kind is Any:
        return lambda value: value
    if origin in (Union, UnionType):
        return _reader(args[0])
    if origin is tuple:
        item = _reader(args[0])
        return lambda value: None if value is None else tuple(map(item, value))
    if origin is dict:
        item = _reader(args[1])
        return lambda value: (
            None if value is None else {key: item(inner) for key, inner in value.items()}
        )
    if is_dataclass(kind):
        readers = {name: _reader(hint) for name, hint in get_type_hints(kind).items()}
        return lambda value: None if value is None else _entry(kind, readers, value)
    # JSON Schema takes 3.0 for an integer, and 3 for a number.
    make: Any = kind
    return lambda value: None if value is None else make(value)


def _entry(kind: Any, readers: dict[str, Callable[[Any], Any]], value: dict[str, Any]) -> Any:
    # The figures of a tensor stand in its entry itself, beside its name.
    found = {**value, "figures": value}
    return kind(**{name: read(found[name]) for name, read in readers.items() if name in found})
