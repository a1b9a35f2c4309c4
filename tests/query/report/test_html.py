import re
from dataclasses import replace
from datetime import UTC, date
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from proponent.query.report import render_html
from proponent.schema.settings import ReportSettings

VOID = {"meta", "link", "line", "rect"}
TAGS = """
html head meta title link style body a header p h1 h2 h3 h4 bdi main nav ol li span aside ul strong mark section figure
blockquote figcaption code article div time details summary table caption thead tbody tr th td svg desc rect text line
footer script
"""
ATTRIBUTES = """
lang charset http-equiv content name rel href class id dir aria-labelledby aria-hidden aria-label tabindex role
title datetime scope viewbox preserveaspectratio x y width height rx x1 x2 y1 y2 text-anchor type
"""


class Page(HTMLParser):
    """What a browser would make of the page: every tag, its attributes and its text, with the tags balanced."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.texts = [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join("".join(self.texts).split())

    def all(self, tag, **having):
        return [attrs for name, attrs in self.tags if name == tag and having.items() <= attrs.items()]


@pytest.fixture(params=["plain", "hostile", "many", "hostile comparison"])
def page(request, make_report, make_query, hostile_report):
    report = {
        "plain": make_report,
        "hostile": lambda: hostile_report,
        "many": lambda: make_report(*(make_query(trace_id=f"t{n}") for n in range(50))),
        "hostile comparison": lambda: replace(hostile_report, settings=ReportSettings(compare=True)),
    }[request.param]()
    return Page(render_html(report))


def test_only_the_templates_tags_and_attributes_are_on_the_page(page):
    assert {tag for tag, _ in page.tags} <= set(TAGS.split())
    assert {name for _, attrs in page.tags for name in attrs} <= set(ATTRIBUTES.split())


def test_the_only_script_is_data(page):
    assert page.all("script") == [{"type": "application/json", "id": "proponent-report"}]


def test_nothing_is_loaded_from_anywhere(page):
    assert [attrs["href"] for attrs in page.all("link")] == ["data:,"]
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert page.all("meta", name="referrer", content="no-referrer")


def test_the_style_sheet_loads_nothing(make_report):
    style = re.search(r"<style>(.*?)</style>", render_html(make_report()), re.DOTALL)[1]

    assert not re.search(r"url\(|@import|@font-face|expression|//", style)


def test_every_link_goes_to_the_page_itself_or_says_nothing_about_where_it_was(page):
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    for attrs in page.all("a"):
        if attrs["href"].startswith("#"):
            assert attrs["href"][1:] in ids
        else:
            assert attrs["href"].startswith(("http://", "https://"))
            assert attrs["rel"] == "noreferrer noopener nofollow"


def test_hostile_addresses_are_shown_and_not_linked(hostile_report):
    page = Page(render_html(hostile_report))

    assert not [attrs for attrs in page.all("a") if not attrs["href"].startswith("#")]
    assert "address, not linked: javascript:alert(1)" in page.text


def test_hostile_text_can_be_read(hostile_report):
    text = Page(render_html(hostile_report)).text

    for seen in (
        "<script>alert(1)</script>",
        "{{ 7 * 7 }}",
        "U+202E",
        "U+0000 \u00d73",
        "U+D800",
        "U+00AD",
        "&lt;b&gt;",
    ):
        assert seen in text


def test_no_invisible_character_is_in_the_file(hostile_report):
    source = render_html(hostile_report)

    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]", source)
    source.encode("utf-8")


def test_ids_are_unique_and_references_hold(page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]

    assert len(ids) == len(set(ids))
    for _, attrs in page.tags:
        assert set(attrs.get("aria-labelledby", "").split()) <= set(ids)


def test_headings_are_in_order(page):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]

    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


def test_landmarks_language_and_captions_are_there(page):
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("main")) == 1
    assert len(page.all("table")) == len(page.all("caption"))
    assert page.all("a", href="#content")


def test_every_chart_has_a_table_beside_it(make_report, make_query, make_hit):
    hit = make_hit(source="a", published=date(2020, 1, 1))
    page = Page(render_html(make_report(*(make_query(proponents=(hit,)) for _ in range(3)))))
    charts = [one for one in page.all("svg") if "chart" in one["class"]]

    assert len(charts) == 6
    assert all(chart["role"] == "img" for chart in charts)
    assert len(page.all("table")) >= len(charts)


def test_both_sides_are_shown(make_report):
    page = Page(render_html(make_report()))

    assert "Paris is the capital of France." in page.text
    assert "Lyon is a city." in page.text
    assert "+0.2000" in page.text
    assert "\u22120.1000" in page.text
    assert len(page.all("article")) == 3


def test_a_side_without_hits_says_so(make_report, make_query):
    text = Page(render_html(make_report(make_query(proponents=(), opponents=())))).text

    assert "No proponents are listed." in text
    assert "No opponents are listed." in text
    assert "Where the listed proponents come from" not in text


def test_what_is_unknown_is_said_and_never_none(make_report):
    text = Page(render_html(make_report())).text

    assert "Untitled (FR-1)" in text
    assert "undated" in text
    assert "No listed proponent names a source." in text
    assert "No listed proponent is dated." in text
    assert "None" not in text


def test_a_date_on_a_card_says_no_more_than_is_known(make_report, make_query, make_hit):
    hit = make_hit(published=date(2021, 3, 14), published_precision="month")
    page = Page(render_html(make_report(make_query(proponents=(hit,)))))

    assert page.all("time") == [{"datetime": "2021-03"}]
    assert "14 March" not in page.text


def test_the_matched_words_are_marked(make_report):
    source = render_html(make_report())

    assert '<mark class="target">Paris</mark> is the <mark class="prompt">capital</mark> of' in source


def test_context_further_away_is_folded_and_not_lost(make_report, make_query, make_hit):
    hit = make_hit(before="far away " * 100, after=" ending" * 100)
    page = Page(render_html(make_report(make_query(proponents=(hit,), opponents=()))))

    assert len(page.all("details")) == 1
    assert hit.before.strip() in page.text


def test_one_query_needs_no_index_and_fifty_have_one(make_report, make_query):
    assert not Page(render_html(make_report())).all("nav")

    page = Page(render_html(make_report(*(make_query(target=f" city {n}") for n in range(1, 51)))))
    assert len(page.all("nav")) == 1
    assert [a["href"] for a in page.all("a") if re.fullmatch(r"#query-\d+", a["href"])] == [
        f"#query-{n}" for n in range(1, 51)
    ]
    assert "Question 50 of 50" in page.text


def test_the_filter_is_shown_as_it_was_given(make_report, make_query):
    page = Page(render_html(make_report(make_query(filter="source = 'a' AND year < 2000"))))

    assert "Only passages that meet source = 'a' AND year < 2000 were searched." in page.text


def test_the_same_report_gives_the_same_bytes(make_report, hostile_report):
    plain = make_report()
    elsewhere = replace(plain, created_at=plain.created_at.astimezone(UTC))

    assert render_html(plain) == render_html(elsewhere)
    assert render_html(hostile_report) == render_html(hostile_report)


def _luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_enough_contrast_on_every_ground_it_stands_on(make_report, scheme):
    style = re.search(r"<style>(.*?)</style>", render_html(make_report()), re.DOTALL)[1]
    roots = [
        dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]
    colours = roots[scheme]
    grounds = {
        "ink": ("page", "card", "towards-soft", "away-soft"),
        "muted": ("page", "card"),
        "link": ("page", "card"),
        "towards": ("page", "card"),
        "away": ("page", "card"),
        "on-target": ("target",),
    }
    for text, behind in grounds.items():
        for ground in behind:
            light, dark = sorted((_luminance(colours[text]), _luminance(colours[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)
