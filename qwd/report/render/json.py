"""A report as `report.json` holds it."""

import json

from qwd.report.figures import Report


def render(report: Report) -> str:
    """The report as JSON; `qwd.report.load.load_report` reads it back."""
    return json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n"
