"""Reports to render: plain ones, and one in which every field that a corpus fills is hostile."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from proponent.query.report import AskedPart, Beside, Group, Hit, Report, Sources, TokenShare, TracedQuery

ASKED = datetime(2025, 3, 1, 9, 5, tzinfo=UTC)

HOSTILE = (
    '</style></title><script>alert(1)</script><img src=x onerror=alert(1)>"\' onmouseover="alert(1)\n\n'
    "# heading\n- item\n1. item\n> quote\n    code\n```\nfence\n~~~\n| a | b |\n| --- | --- |\n===\n***\n"
    "[link](javascript:alert(1)) ![image](http://evil.example/x.png) <http://evil.example/> [ref]: http://evil.example\n"
    "&lt;b&gt; &#60; {{ 7 * 7 }} {% raw %} ${x} `code` **bold** _italics_ ~~gone~~ \\ \\| \\` C:\\new\n"
    "\u202egnp.exe\u202c \u2066isolated\u2069 zero\u200bwidth \ufeff\x00\x00\x00\x1b[31m\x7f\x85 \ud800"
    " soft\u00adhyphen"
)


@pytest.fixture
def make_hit() -> Callable[..., Hit]:
    def make(**changes: Any) -> Hit:
        given: dict[str, Any] = {
            "side": "proponent",
            "rank": 1,
            "passage_id": "p1",
            "score": 0.2,
            "text": "Paris is the capital of France.",
            "doc_id": "d1",
            "doc_key": "FR-1",
            "corpus": "factbook",
        }
        return Hit(**given | changes)

    return make


@pytest.fixture
def make_query(make_hit: Callable[..., Hit]) -> Callable[..., TracedQuery]:
    def make(**changes: Any) -> TracedQuery:
        given: dict[str, Any] = {
            "trace_id": "t1",
            "query_id": "q1",
            "prompt": "The capital of France is",
            "target": " Paris",
            "target_loss": 0.5,
            "n_target_tokens": 2,
            "method": "trackstar",
            "encoder": "e1",
            "curvature": "reference",
            "k": 10,
            "n_candidates": 1200,
            "snapshot": "7",
            "created_at": ASKED,
            "proponents": (make_hit(), make_hit(rank=2, score=0.1, passage_id="p2")),
            "opponents": (make_hit(side="opponent", score=-0.1, passage_id="p3", text="Lyon is a city."),),
        }
        return TracedQuery(**given | changes)

    return make


@pytest.fixture
def make_report(make_query: Callable[..., TracedQuery]) -> Callable[..., Report]:
    def make(*queries: TracedQuery, **changes: Any) -> Report:
        given: dict[str, Any] = {
            "title": "Where an answer comes from",
            "created_at": ASKED,
            "queries": queries or (make_query(),),
            "provenance": (("Model", "small, sha256 00ff"), ("Make it again", "proponent report lake t1 -o r.html")),
        }
        return Report(**given | changes)

    return make


@pytest.fixture
def hostile_report(
    make_hit: Callable[..., Hit], make_query: Callable[..., TracedQuery], make_report: Callable[..., Report]
) -> Report:
    """Two queries, because one alone has no index."""
    fields = dict.fromkeys(
        ("passage_id", "text", "before", "after", "doc_id", "doc_key", "corpus", "source", "title", "license"), HOSTILE
    )
    urls = (
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "//evil.example/",
        'https://evil.example/"onmouseover="alert(1)',
        "https://bank.example@evil.example/",
        "http://[broken",
        HOSTILE,
    )
    tokens = tuple(TokenShare(start, start + 7, (-1) ** start * start) for start in range(0, len(HOSTILE) - 7, 7))
    hits = tuple(
        make_hit(
            **fields, entities=(HOSTILE,) * 20, url=url, rank=rank, published=date(1850 + rank, 1, 1), tokens=tokens
        )
        for rank, url in enumerate(urls, start=1)
    )
    asked = dict.fromkeys(("trace_id", "query_id", "prompt", "target", "method", "encoder", "filter"), HOSTILE)
    group = Group(label=HOSTILE, n_passages=3, influence=-0.5, share=-0.5, passage_share=0.1, place=2020)
    beside = Beside(
        sources=Sources(by_source=(group, group), by_time=(group,), span="year", n_passages=6), words=hits[:2]
    )
    told = {"beside": beside, "notes": (HOSTILE,), "provenance": ((HOSTILE, HOSTILE),), "query_set": HOSTILE}
    query = make_query(**asked, **told, curvature=HOSTILE, snapshot=HOSTILE, proponents=hits)
    part = AskedPart(prompt=HOSTILE, target=HOSTILE, weight=1.0, rendered=HOSTILE, query="a")
    parts = (part, replace(part, weight=-1.0), replace(part, query="b"))
    summed = make_query(**asked, parts=parts, proponents=hits[:1], beside=Beside(words_missing=HOSTILE))
    return make_report(query, summed, title=HOSTILE, provenance=((HOSTILE, HOSTILE),), notes=(HOSTILE,))
