"""A report as `report.json` holds it."""

import io
import json

from qwd.report.figures import Report


def render(report: Report) -> str:
    """The report as JSON; `qwd.report.load.load_report` reads it back."""
    page = io.StringIO()
    json.dump(report.to_dict(), page, indent=2, allow_nan=False)  # dumps keeps millions of pieces
    return f"{page.getvalue()}\n"
