"""Registries: built-in entries, registration, errors."""

import pytest

from qwd.errors import UsageError
from qwd.registry import KINDS, Registry


@pytest.mark.parametrize("kind", KINDS)
def test_every_built_in_entry_exists_and_says_what_it_is(kind: str) -> None:
    registry = KINDS[kind]
    for name in registry.names():
        entry = registry.get(name)
        assert getattr(entry, "summary", None) or entry.__doc__


def test_registering_adds_and_refuses_a_taken_name() -> None:
    registry = Registry("thing", "qwd.tests", {"old": "json:dumps"})

    @registry.register("new")
    def new() -> None:
        """New."""

    assert registry.names() == ["old", "new"]
    assert registry.get("new") is new
    assert registry.get("old")([]) == "[]"
    with pytest.raises(UsageError, match="thing 'old' is registered already"):
        registry.register("old")(new)


def test_an_unknown_name_is_answered_with_the_nearest_or_all() -> None:
    registry = Registry("thing", "qwd.tests", {"alpha": "json:dumps", "beta": "json:loads"})
    with pytest.raises(UsageError, match="unknown thing 'alhpa': did you mean 'alpha'"):
        registry.get("alhpa")
    with pytest.raises(UsageError, match="known: alpha, beta"):
        registry.check("zzz")
