"""A passage with marks and shades is still the passage."""

import re

from hypothesis import given
from hypothesis import strategies as st

from proponent.query.report import Hit, TokenShare
from proponent.query.report.marks import query_words
from proponent.query.report.shown import LEVELS, marked_html, pieces, strongest_tokens

WORDS = query_words("The capital of France", " Paris")


def hit(text, tokens=()):
    return Hit(
        side="proponent", rank=1, passage_id="p", score=1.0, text=text, doc_id="d", doc_key="k", corpus="c",
        tokens=tokens,
    )  # fmt: skip


@st.composite
def tokenised(draw):
    text = draw(st.text(st.sampled_from("Paris France\n<&\u202eé東"), max_size=60))
    bounds = sorted(draw(st.lists(st.integers(0, len(text)), unique=True, max_size=20)))
    shares = st.floats(-1, 1) | st.just(0.0)
    return text, tuple(TokenShare(a, b, draw(shares)) for a, b in zip(bounds[::2], bounds[1::2], strict=False))


@given(tokenised())
def test_pieces_are_the_text_again_and_shades_stand_where_the_tokens_do(drawn):
    text, tokens = drawn
    found = list(pieces(hit(text, tokens), WORDS))

    assert "".join(piece.text for piece in found) == text
    assert all(piece.text and abs(piece.level) <= LEVELS for piece in found)
    levels = [piece.level for piece in found for _ in piece.text]
    largest = max((abs(token.share) for token in tokens), default=0)
    covered = set()
    for token in tokens:
        covered |= set(range(token.start, token.end))
        for place in range(token.start, token.end):
            assert levels[place] * token.share >= 0
            if abs(token.share) == largest > 0:
                assert abs(levels[place]) == LEVELS
    assert all(level == 0 for place, level in enumerate(levels) if place not in covered)


def test_marks_and_shades_stand_on_the_same_text():
    shown = marked_html(hit("Is Paris it", (TokenShare(0, 5, -0.5), TokenShare(5, 8, 1.0))), WORDS)

    assert shown == (
        '<span class="token away-3">Is </span><mark class="target"><span class="token away-3">Pa</span></mark>'
        '<mark class="target"><span class="token towards-4">ris</span></mark> it'
    )
    assert re.sub("<[^>]*>", "", shown) == "Is Paris it"


def test_the_strongest_tokens_are_listed_whichever_way_they_push():
    tokens = tuple(TokenShare(n, n + 1, (-1) ** n * n) for n in range(8))

    assert strongest_tokens(hit("abcdefgh", tokens)) == (("h", -7), ("g", 6), ("f", -5), ("e", 4), ("d", -3))
