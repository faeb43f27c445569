"""A report as `report.json` holds it."""

import io
import json

from qwd.report.figures import Report

INDENTED = 100
"""models; of more nobody reads the text, which is several times as slow to write with spaces"""


def render(report: Report) -> str:
    """The report as JSON; `qwd.report.load.load_report` reads it back."""
    content = report.to_dict()
    if len(report.models) > INDENTED:
        return json.dumps(content, allow_nan=False) + "\n"
    page = io.StringIO()
    json.dump(content, page, indent=2, allow_nan=False)  # dumps keeps millions of pieces
    return f"{page.getvalue()}\n"
