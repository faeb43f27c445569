"""Silence inside, and everything as it was outside."""

import logging
import sys
import warnings

import pytest
import torch

from qwd.quantize.quiet import quiet


def test_nothing_is_heard_inside(capfd, caplog) -> None:
    with quiet():
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.warning("by the root logger")
        logging.getLogger("library.part").critical("by another")
        print("by print", file=sys.stderr)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_heard_outside(fails, capfd, caplog) -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level, list(warnings.filters), sys.stderr
    logging.disable(logging.DEBUG)
    try:
        with pytest.raises(ValueError, match="inside") if fails else quiet(), quiet():
            logging.warning("lost")
            if fails:
                raise ValueError("inside")
        assert root.manager.disable == logging.DEBUG
    finally:
        logging.disable(logging.NOTSET)
    assert before == (list(root.handlers), root.level, list(warnings.filters), sys.stderr)
    logging.getLogger("library.part").warning("heard")
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)
    print("heard", file=sys.stderr)
    assert [record.getMessage() for record in caplog.records] == ["heard"]
    assert "heard\n" in capfd.readouterr().err


def test_a_root_logger_without_handlers_gets_none(monkeypatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    with quiet():
        logging.warning("would install a handler on stderr")
    assert root.handlers == []


def test_random_numbers_are_those_that_would_have_come() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with quiet():
        torch.rand(5)
    assert torch.equal(torch.rand(3), expected)
