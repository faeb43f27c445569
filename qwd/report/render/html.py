"""A report as one self-contained HTML page: no script, nothing loaded from elsewhere."""

from collections.abc import Iterable

from jinja2 import Environment

from qwd.printable import printable
from qwd.report.figures import Report
from qwd.report.render import tables
from qwd.report.render.blocks import Block

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>qwd report</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 80rem; padding: 1rem }
  div { overflow-x: auto; margin: 1rem 0 }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums }
  th, td { padding: .2rem .8rem .2rem 0; text-align: right; white-space: nowrap }
  th.text, td.text { text-align: left }
  th { border-bottom: 1px solid }
  tr.failure td { font-weight: bold }
  .warning, .failure { color: #b00020 }
  @media (prefers-color-scheme: dark) {
    body { background: #111; color: #ddd } .warning, .failure { color: #ff8a80 }
  }
</style>
<h1>qwd report</h1>
{% for block in page %}
{% if block.kind is defined %}
<p class="{{ block.kind }}">
{% if block.kind != "plain" %}{{ block.kind }}: {% endif %}{{ block.text | printable }}
</p>
{% elif block.text is defined %}
<h2>{{ block.text | printable }}</h2>
{% else %}
<div><table>
<thead><tr>{% for cell in block.header -%}
<th{% if block.is_text(loop.index0) %} class="text"{% endif %}>{{ cell | printable }}</th>
{%- endfor %}</tr></thead>
<tbody>
{% for row in block.rows %}
<tr{% if loop.index0 in block.failures %} class="failure"{% endif %}>{% for cell in row -%}
<td{% if block.is_text(loop.index0) %} class="text"{% endif %}>{{ cell | printable }}</td>
{%- endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endif %}
{% endfor %}
</html>
"""


def render(report: Report, *, top: int | None = None, sort: str | None = None) -> str:
    """The report as an HTML page; ``top`` and ``sort`` as in the text."""
    return show(tables.blocks(report, top, sort))


def show(blocks: Iterable[Block]) -> str:
    """A page of blocks as HTML; names in it are escaped."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.keep_trailing_newline = True
    environment.filters["printable"] = printable
    return environment.from_string(PAGE).render(page=blocks)
