import re
import unicodedata
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.query.report import text


@given(st.text())
def test_html_text_loses_nothing_that_can_be_seen(value):
    shown = unescape(re.sub(r'<span class="ctl" title="[^"<>]*">[^<>]*</span>', "", str(text.html(value))))

    assert shown == re.sub(r"⟨U\+[0-9A-F]{4,6}( \u00d7\d+)?⟩", "", text.plain(value)) or "⟨U+" in value


@given(st.text(alphabet=st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Lu"])))
def test_no_control_or_format_character_reaches_the_page(value):
    allowed = set("\t\n") | {chr(code) for code in (*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2)}
    allowed |= {chr(code) for code in (0x110BD, 0x110CD, *range(0x13430, 0x13440))}  # these are drawn

    for shown in (str(text.html(value)), text.plain(value), text.markdown(value)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff]", shown)
        unseen = {c for c in shown if c not in allowed and unicodedata.category(c) in ("Cf", "Cc", "Cs")}
        assert not unseen
        shown.encode("utf-8")


def test_a_placeholder_names_its_character_and_counts_runs():
    assert str(text.html("a\u202eb")) == 'a<span class="ctl" title="U+202E RIGHT-TO-LEFT OVERRIDE">U+202E</span>b'
    assert "U+0000 \u00d73" in text.html("\0\0\0")
    assert text.plain("\u200b") == "⟨U+200B⟩"


def test_windows_line_ends_are_line_ends_and_not_placeholders():
    assert text.plain("a\r\nb\rc") == "a\nb⟨U+000D⟩c"


@pytest.mark.parametrize("url", ["https://example.org/a?b=c&d=e#f", "http://example.org", "HTTPS://Example.org/(x)"])
def test_ordinary_addresses_become_links(url):
    assert text.safe_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "javascript:alert(1)",
        " javascript:alert(1)",
        "java\tscript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "//example.org",
        "example.org",
        "https:///path",
        "https://user@example.org",
        "https://example.org/<b>",
        'https://example.org/"x',
        "https://example.org/ x",
        "https://example.org/\u202e",
        "https://example.org\\@evil.example",
        "http://[::1",
    ],
)
def test_everything_else_stays_text(url):
    assert text.safe_url(url) is None


@given(st.text(), st.integers(1, 50))
def test_a_cut_text_is_the_text_or_an_end_of_it(value, length):
    start, end = text.keep_start(value, length), text.keep_end(value, length)

    assert start == value or (value.startswith(start[:-1]) and start.endswith("…"))
    assert end == value or (value.endswith(end[1:]) and end.startswith("…"))
    assert len(start) <= max(length + 1, 1)
    assert len(end) <= max(length + 1, 1)


def test_cutting_by_lines_keeps_the_nearest():
    assert text.keep_start("a\nb\nc\nd", 100, lines=2) == "a\nb…"
    assert text.keep_end("a\nb\nc\nd\n", 100, lines=2) == "…c\nd\n"
    assert text.keep_end("a\nb", 100, lines=2) == "a\nb"


@given(st.text(alphabet="`a \n\t"))
def test_a_code_span_outlasts_every_backtick_in_it(value):
    span = text.markdown_code(value)
    if not value:
        return
    fence = re.match("`+", span)[0]

    assert "\n" not in span
    assert span.endswith(fence)
    assert fence not in re.findall("`+", span[len(fence) : -len(fence)])
