"""Columns and orders of the tables of weights."""

import csv
import io
from dataclasses import replace

import pytest

from qwd.quantize.figures import WidthFigures
from qwd.report.figures import ChannelReport, VectorGroup
from qwd.report.load import validate
from qwd.report.render import csv as as_csv
from qwd.report.render import html, markdown, text
from qwd.report.render.tensors import SORTS

from .builders import figures, model, report, tensor

CHANNELS = ChannelReport(
    axis=0,
    channels=16,
    range_median=0.5,
    spread=1.75,
    dead=2,
    dead_channels=(3, 5),
    floored={"PT2E": 1},
    sqnr_db=45.0,
    sqnr_expected_db=44.9,
    gain_db=3.85,
)
WIDER = replace(CHANNELS, spread=9.0)
FOUR = WidthFigures(
    bits=4,
    scale=0.06,
    sqnr_db=16.25,
    sqnr_expected_db=16.0,
    rmse_over_scale=0.29,
    codes_used=16,
    entropy_bits=3.0,
    crowding=None,
)
RICH = model(
    tensors=(
        replace(
            tensor("a.weight", figures=figures(widths=(FOUR,))),
            kind="convolution",
            norm="bn1",
            channels=CHANNELS,
            folded_channels=replace(CHANNELS, gain_db=9.5),
        ),
        replace(tensor("b.weight", sqnr=60.0), kind="linear", channels=WIDER),
    ),
    deployed=(),
    vectors=(VectorGroup(kind="bias", tensors=3, elements=1234),),
    hints=("clip the first one",),
)


def test_widths_channels_and_kinds_have_columns():
    page = text.render(report(RICH), width=300)
    lines = [line.split() for line in page.splitlines()]
    raw = next(line for line in lines if line[:2] == ["a.weight", "raw"])
    folded = next(line for line in lines if line[:2] == ["bn1", "folded"])
    assert raw[-4:] == ["16.25", "3.85", "1.75", "2"]
    assert folded[-4:] == ["-", "9.50", "1.75", "2"]
    assert ["bias", "3", "1,234", "-", "-"] in lines
    assert ["convolution", "1", "432", "41.20", "9.50"] in lines
    assert "clip the first one" in page


@pytest.mark.parametrize("render", [text.render, markdown.render, html.render])
@pytest.mark.parametrize("sort", SORTS)
def test_every_order_in_every_page(render, sort: str):
    assert "a.weight" in render(report(RICH), sort=sort)


@pytest.mark.parametrize(
    ("sort", "first"), [("sqnr", "a"), ("gain", "a"), ("name", "a"), ("spread", "b")]
)
def test_orders(sort: str, first: str):
    page = text.render(report(RICH), width=300, sort=sort, top=1)
    assert [word for word in page.split() if word in ("a.weight", "b.weight")] == [
        f"{first}.weight"
    ]
    assert f"The first 1 of 2 tensors by {sort}; --top N shows more." in page


def test_the_table_for_programs_has_them_all():
    rows = list(csv.DictReader(io.StringIO(as_csv.render(report(RICH)))))
    raw, folded = rows[:2]
    assert (raw["kind"], raw["norm"], raw["w4_sqnr_db"]) == ("convolution", "bn1", "16.25")
    assert (raw["channel_gain_db"], folded["channel_gain_db"]) == ("3.85", "9.5")
    assert (raw["channel_dead"], folded["w4_sqnr_db"]) == ("2", "")


def test_it_follows_the_schema():
    validate(report(RICH).to_dict())
