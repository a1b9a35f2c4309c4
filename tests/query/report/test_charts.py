import re
import xml.etree.ElementTree as ET

import pytest

from proponent.query.report import Share
from proponent.query.report.charts import WIDTH, bar_chart, column_chart


def boxes(svg):
    root = ET.fromstring(svg)
    return [{name: float(rect.get(name)) for name in ("x", "y", "width", "height")} for rect in root.iter("rect")]


def years(*counted):
    return tuple(Share(str(year), n, 0.1 * n) for year, n in counted)


@pytest.mark.parametrize("draw", [bar_chart, column_chart])
def test_a_chart_is_named_and_described(draw):
    root = ET.fromstring(draw(years((2001, 2), (2003, 1)), ident="c1", title="By <year>"))

    assert root.get("role") == "img"
    assert root.get("aria-labelledby").split() == ["c1-title", "c1-desc"]
    assert root.find("title").text == "By <year>"
    assert root.find("desc").text == "2001: 2; 2003: 1"


def test_bars_are_as_long_as_their_counts():
    drawn = boxes(bar_chart((Share("a", 4, 1.0), Share("b", 1, 1.0)), ident="c", title="t"))

    assert drawn[0]["width"] == pytest.approx(4 * drawn[1]["width"], rel=0.01)


def test_columns_stand_at_their_place_in_time():
    first, second, third = boxes(column_chart(years((2000, 1), (2001, 1), (2010, 1)), ident="c", title="t"))

    assert third["x"] - second["x"] == pytest.approx(9 * (second["x"] - first["x"]), rel=0.02)


@pytest.mark.parametrize("span", [(2020, 2020), (2019, 2020), (1789, 2026), (1, 2026)])
def test_everything_is_drawn_inside_the_picture(span):
    shares = (*years((span[0], 3), (span[1] + 1, 1)), Share("undated", 2, 0.1, known=False))
    for svg in (column_chart(shares, ident="c", title="t"), bar_chart(shares, ident="c", title="t")):
        height = float(re.search(r'viewBox="0 0 \d+ (\d+)"', svg)[1])
        for box in boxes(svg):
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= WIDTH
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= height


def test_many_sources_are_summed_into_one_bar():
    shares = tuple(Share(f"s{n}", 30 - n, 0.1) for n in range(25))

    root = ET.fromstring(bar_chart(shares, ident="c", title="t"))

    assert len(list(root.iter("rect"))) == 10
    assert "16 more: " in root.find("desc").text


def test_nothing_known_gives_no_chart():
    assert bar_chart((), ident="c", title="t") == ""
    assert column_chart((Share("undated", 2, 0.1, known=False),), ident="c", title="t") == ""


def test_labels_are_text_and_fit():
    svg = bar_chart((Share("<b>&\u202e" + "東" * 100, 1, 0.1),), ident="c", title="t")

    label = next(ET.fromstring(svg).iter("text")).text
    assert label.startswith("<b>&⟨U+202E⟩東")
    assert len(label) < 40
