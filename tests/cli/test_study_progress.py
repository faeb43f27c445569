"""The progress of a study on stderr."""

import pytest
from qwd_cli import study_progress
from qwd_cli.study_progress import StudyProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    now = [100.0]
    monkeypatch.setattr(study_progress.time, "monotonic", lambda: now[0])
    return now


def told(progress: StudyProgress, clock: list[float], times: int, seconds: float) -> None:
    for _ in range(times):
        clock[0] += seconds
        progress.evaluated()
    progress.ended()


def test_a_short_study_has_a_line_for_each(capsys, clock: list[float]) -> None:
    progress = StudyProgress()
    progress.begins("fix", 1, 5, 1234)
    told(progress, clock, 3, 1)
    assert capsys.readouterr().err.splitlines() == [
        "fix: 1 evaluation of 1,234 images, then at most 5 more",
        "fix: 1 of 1",
        "fix: 2 of at most 6",
        "fix: 3 of at most 6",
    ]


def test_a_long_study_has_few_lines_and_says_how_long_it_takes(capsys, clock: list[float]) -> None:
    progress = StudyProgress()
    progress.begins("sensitivity", 403, 0, 2000)
    told(progress, clock, 403, 10)
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == "sensitivity: 403 evaluations of 2,000 images"
    assert lines[0] == "sensitivity: 40 of 403, about 60 min left"
    assert lines[-1] == "sensitivity: 403 of 403"
    assert len(lines) == 11


def test_a_terminal_has_one_line(capsys, clock: list[float]) -> None:
    progress = StudyProgress()
    progress.in_one_line = True
    for _ in range(2):
        progress.begins("sensitivity", 3, 0, 10)
        told(progress, clock, 3, 1)
    assert capsys.readouterr().err.count("\n") == 4
    progress.ended()
    assert capsys.readouterr().err == ""
