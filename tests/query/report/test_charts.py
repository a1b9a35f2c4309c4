import re
import xml.etree.ElementTree as ET

import pytest

from proponent.query.report.charts import WIDTH, Bar, bar_chart, column_chart


def boxes(svg):
    root = ET.fromstring(svg)
    return [{name: float(rect.get(name)) for name in ("x", "y", "width", "height")} for rect in root.iter("rect")]


def years(*counted):
    return tuple(Bar(str(year), n, str(n), place=year) for year, n in counted)


def columns(bars, *, span="year", **names):
    return column_chart(bars, span=span, **names)


@pytest.mark.parametrize("draw", [bar_chart, columns])
def test_a_chart_is_named_and_described(draw):
    root = ET.fromstring(draw(years((2001, 2), (2003, 1)), ident="c1", title="By <year>"))

    assert root.get("role") == "img"
    assert root.get("aria-labelledby").split() == ["c1-title", "c1-desc"]
    assert root.find("title").text == "By <year>"
    assert root.find("desc").text == "2001: 2; 2003: 1"


def test_bars_are_as_long_as_their_counts():
    drawn = boxes(bar_chart((Bar("a", 4, "4"), Bar("b", 1, "1")), ident="c", title="t"))

    assert drawn[0]["width"] == pytest.approx(4 * drawn[1]["width"], rel=0.01)


def test_columns_stand_at_their_place_in_time():
    first, second, third = boxes(columns(years((2000, 1), (2001, 1), (2010, 1)), ident="c", title="t"))

    assert third["x"] - second["x"] == pytest.approx(9 * (second["x"] - first["x"]), rel=0.02)


@pytest.mark.parametrize("span", [(2020, 2020), (2019, 2020), (1789, 2026), (1, 2026)])
def test_everything_is_drawn_inside_the_picture(span):
    shares = (*years((span[0], 3), (span[1] + 1, 1)), Bar("undated", 2, "2", known=False))
    for svg in (columns(shares, ident="c", title="t"), bar_chart(shares, ident="c", title="t")):
        height = float(re.search(r'viewBox="0 0 \d+ (\d+)"', svg)[1])
        for box in boxes(svg):
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= WIDTH
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= height


def test_many_sources_are_counted_in_a_last_line():
    bars = tuple(Bar(f"s{n}", 30 - n, str(30 - n)) for n in range(25))

    root = ET.fromstring(bar_chart(bars, ident="c", title="t"))

    assert len(list(root.iter("rect"))) == 12
    assert [text.text for text in root.iter("text")][-1] == "and 13 more, in the table"
    assert "s24: 6" in root.find("desc").text


def test_values_below_zero_go_the_other_way_from_a_line():
    bars = (Bar("a", 0.6, "+60 %", place=2001), Bar("b", -0.2, "-20 %", place=2002))
    for svg, across, along in (
        (bar_chart(bars, ident="c", title="t"), "x", "width"),
        (columns(bars, ident="c", title="t"), "y", "height"),
    ):
        up, down = boxes(svg)
        line = next(ET.fromstring(svg).iter("line"))
        zero = float(line.get(f"{across}1"))
        assert up[along] == pytest.approx(3 * down[along], rel=0.01)
        ends = (up[across], down[across] + down[along]) if across == "x" else (up["y"] + up["height"], down["y"])
        assert ends == pytest.approx((zero, zero), abs=0.11)
        assert 'class="bar away"' in svg


@pytest.mark.parametrize(
    ("span", "place", "label"), [("month", 2020 * 12, "2020-01"), ("decade", 199, "1990"), ("century", 17, "1700")]
)
def test_a_time_axis_is_labelled_in_its_spans(span, place, label):
    svg = columns((Bar("x", 1, "1", place=place),), ident="c", title="t", span=span)

    assert label in [text.text for text in ET.fromstring(svg).iter("text")]


def test_nothing_known_gives_no_chart():
    assert bar_chart((), ident="c", title="t") == ""
    assert columns((Bar("undated", 2, "2", known=False),), ident="c", title="t") == ""


def test_labels_are_text_and_fit():
    svg = bar_chart((Bar("<b>&\u202e" + "東" * 100, 1, "1"),), ident="c", title="t")

    label = next(ET.fromstring(svg).iter("text")).text
    assert label.startswith("<b>&⟨U+202E⟩東")
    assert len(label) < 40
