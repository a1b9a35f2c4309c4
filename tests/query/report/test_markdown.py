import re
from itertools import pairwise

import pytest
from markdown_it import MarkdownIt

from proponent.query.report import render_markdown


@pytest.fixture
def parse():
    return MarkdownIt("commonmark").enable("table").enable("strikethrough").parse


def tokens(parsed):
    for token in parsed:
        yield token
        yield from token.children or ()


def test_hostile_text_stays_text(parse, hostile_report):
    found = list(tokens(parse(render_markdown(hostile_report))))
    kinds = {token.type for token in found}
    [made] = [token.content for token in found if token.type == "html_block"]

    assert re.fullmatch(r"<!-- proponent-report \{[^<>]*\} -->\n", made)
    assert not kinds & {"html_inline", "image", "fence", "code_block", "hr", "s_open"}
    assert {token.attrs["href"] for token in found if token.type == "link_open"} == {"#question-1", "#question-2"}


def test_a_passage_opens_no_heading_list_or_table_of_its_own(parse, make_report, make_query, make_hit, hostile_report):
    passage = hostile_report.queries[0].proponents[0].text
    calm, hostile = (
        [token.type for token in parse(render_markdown(make_report(make_query(proponents=(make_hit(text=text),)))))]
        for text in ("calm", passage)
    )
    for kind in ("heading_open", "bullet_list_open", "ordered_list_open", "table_open", "blockquote_open"):
        assert hostile.count(kind) == calm.count(kind), kind


def test_tables_stay_whole(parse, hostile_report):
    row = []
    widths = set()
    for token in parse(render_markdown(hostile_report)):
        if token.type == "tr_open":
            row = []
        elif token.type in ("th_open", "td_open"):
            row.append(token)
        elif token.type == "tr_close":
            widths.add(len(row))
        elif token.type == "table_close":
            assert len(widths) == 1
            widths = set()


def test_rows_have_as_many_cells_as_their_header(hostile_report):
    lines = render_markdown(hostile_report).split("\n")
    for above, line in pairwise(lines):
        if above.startswith("|") and line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", above)) == len(re.findall(r"(?<!\\)\|", line))


def test_the_passage_reads_as_it_was_written(parse, make_report, make_query, make_hit):
    written = "1. Paris & <b>Lyon</b> | 50 %\n# 2 * 3 = 6 `x` [y](z) _u_\n\n    indented \\ www.example.org"
    report = make_report(make_query(proponents=(make_hit(text=written),), opponents=()))
    quoted, inside = "", False
    for token in parse(render_markdown(report)):
        inside = (inside or token.type == "blockquote_open") and token.type != "blockquote_close"
        if inside and token.type == "inline":
            quoted += "".join(" " if child.type == "softbreak" else child.content for child in token.children) + " "

    assert quoted.split() == written.split()


def test_words_are_marked(make_report):
    assert "> **Paris** is the *capital* of *France*." in render_markdown(make_report())


def test_links_only_where_they_are_safe(parse, make_report, make_query, make_hit):
    hits = (
        make_hit(title="A [b](c)", url="https://example.org/a_(b)?x=1&copy=2"),
        make_hit(rank=2, title="B", url="javascript:alert(1)"),
    )
    found = list(tokens(parse(render_markdown(make_report(make_query(proponents=hits))))))

    assert [token.attrs["href"] for token in found if token.type == "link_open"] == [
        "https://example.org/a_(b)?x=1&copy=2"
    ]
    assert any("Address, not linked: javascript:alert(1)" in token.content for token in found if token.type == "inline")


def test_both_sides_and_empty_ones_are_shown(make_report, make_query):
    both = render_markdown(make_report())
    assert "Lyon is a city." in both
    assert "+0.2000" in both
    assert "No opponents are listed." in render_markdown(make_report(make_query(opponents=())))


def test_the_exact_question_keeps_its_spaces(make_report):
    assert "- Target: ` Paris`\n" in render_markdown(make_report())


def test_fifty_questions_have_a_table_of_them(make_report, make_query):
    source = render_markdown(make_report(*(make_query(target=f" city {n}") for n in range(1, 51))))

    assert source.count("](#question-") == 50
    assert "\n## Question 50\n" in source


def test_nothing_missing_is_printed_as_none(make_report):
    assert "None" not in render_markdown(make_report())


def test_the_same_report_gives_the_same_bytes(make_report, hostile_report):
    assert render_markdown(make_report()) == render_markdown(make_report())
    assert render_markdown(hostile_report) == render_markdown(hostile_report)
    assert "\n\n\n\n" not in render_markdown(hostile_report)
