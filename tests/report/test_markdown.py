"""Markdown: tables that hold, and any text read back as itself."""

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from qwd.printable import printable
from qwd.report.figures import Comparison, Report
from qwd.report.render import markdown

from .builders import report
from .cases import CASES, HOSTILE


def parsed(page: str) -> list[Token]:
    reader = MarkdownIt("commonmark", {"html": True, "linkify": False})
    return reader.enable(["table", "strikethrough"]).parse(page)


def words(token: Token) -> str:
    children = token.children or []
    assert {c.type for c in children} <= {"text", "text_special", "strong_open", "strong_close"}
    return "".join(child.content for child in children)


def test_markdown_tables_hold_their_names():
    tokens = parsed(markdown.render(CASES["hostile names"]))
    assert not [t for t in tokens if t.type in ("html_block", "code_block", "fence")]
    inline = [words(token) for token in tokens if token.type == "inline"]
    name = printable(HOSTILE)
    assert inline[0] == name
    assert f"warning: {name}" in inline
    assert inline[-1] == name
    # Model, scheme, outlier rule, tensor, kernel, its source, group, reading.
    assert inline.count(name) == 8


def test_markdown_rows_have_as_many_cells_as_their_header():
    tokens = [t.type for t in parsed(markdown.render(CASES["hostile names"]))]
    at = 0
    for _ in range(tokens.count("table_open")):
        start = tokens.index("table_open", at)
        at = tokens.index("table_close", start)
        table = tokens[start:at]
        rows = table.count("tr_open") - 1
        assert table.count("td_open") == rows * table.count("th_open")


paragraphs = st.text().filter(lambda t: t.strip() == t and t)


@settings(max_examples=200, deadline=None)
@given(paragraphs | st.from_regex(r"\A[-+*=#>0-9.)|~_`\\ ]{1,9}[a-z]?\Z").map(str.strip))
def test_any_text_survives_markdown(name: str):
    made = Report(models=(), comparison=Comparison(groups=(), readings=(f"{name}", "end")))
    inline = [words(t) for t in parsed(markdown.render(made)) if t.type == "inline"]
    assert inline[2:] == [*([printable(name)] if name else []), "end"]
    cell = [
        words(t) for t in parsed(f"| {markdown.escape(name)} |\n| --- |\n") if t.type == "inline"
    ]
    assert cell == [printable(name)]


def test_markdown_of_a_model():
    page = markdown.render(report())
    assert page.startswith("## net\n\ndata digits test")
    assert "| tensor | as | range | range/std | sigma&gt;6 |" in page
    assert "| conv.weight | raw | 0.8960 | 8.490 | 1 | 41.20 | 40.34 |" in page
    assert "- **warning:** fc stayed in float" in page
