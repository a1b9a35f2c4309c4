"""A report as data: the JSON form, and the block that every form carries so that it can be checked.

Notable: both are ASCII alone, so that nothing in them can be mistaken for markup or hide from a reader; and neither has
a time of its own.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from typing import Any, Final

from proponent.schema.ids import content_id
from proponent.store.runs import library_versions

from . import methods, numbers, wording
from .answers import CONDITIONED, Answer, answers
from .compare import Compared, compare
from .content import Hit, Report, Sources, TracedQuery

SCHEMA: Final = "proponent report 1"
"""Names the form of the JSON data; another number is another form."""
_NOT_OF_A_QUERY: Final = ("proponents", "opponents", "beside", "withdrawn", "provenance", "recomputed")


def as_data(report: Report) -> dict[str, Any]:
    """Return everything that a report says as JSON data; `docs/report.md` describes it."""
    return {
        "schema": SCHEMA,
        "title": report.title,
        "asked_at": _plain(report.created_at),
        "lake": report.lake,
        "how_to_read": [{"lead": lead, "text": text} for lead, text in methods.reading(report)],
        "notes": list(report.notes),
        "answers": [] if report.settings.compare else [_answer(answer) for answer in answers(report.queries)],
        "questions": [_query(query, number) for number, query in enumerate(report.queries, start=1)],
        "comparison": _comparison(report) if report.settings.compare else None,
        "provenance": _pairs(report.provenance),
        "check": block(report),
    }


def to_json(data: Mapping[str, Any], *, indent: int | None = 2) -> str:
    """Write JSON in ASCII, without what ends a script, a comment or a fence where it stands in a page."""
    written = json.dumps(data, indent=indent, allow_nan=False, separators=(",", ": ") if indent else (",", ":"))
    if indent:
        return written
    for character in "<>&`":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return written


def _query(query: TracedQuery, number: int) -> dict[str, Any]:
    told = {one.name: _plain(getattr(query, one.name)) for one in fields(query) if one.name not in _NOT_OF_A_QUERY}
    loss = query.target_loss
    sources = query.beside.sources
    return {
        "number": number,
        "question": methods.question(query),
        **told,
        "log_probability": None if loss is None or not math.isfinite(loss) else -loss,
        "probability": None if loss is None or not math.isfinite(loss) else math.exp(-max(loss, 0.0)),
        "likelihood": methods.likelihood(query),
        "searched": wording.searched(query),
        "scored": methods.scored(query),
        "proponents": [_hit(hit) for hit in query.proponents],
        "opponents": [_hit(hit) for hit in query.opponents],
        "withdrawn": [{"side": side, "rank": rank} for side, rank in query.withdrawn],
        "recomputed": [{"side": side, "texts": n, "tau": _plain(tau)} for side, n, tau in query.recomputed],
        "sources": {
            "by_source": [_plain(group) for group in sources.by_source],
            "by_time": [_plain(group) for group in sources.by_time],
            "span": sources.span,
            "n_passages": sources.n_passages,
        }
        if sources
        else None,
        "sources_missing": query.beside.sources_missing,
        "same_words": [_hit(hit) for hit in query.beside.words],
        "same_words_missing": query.beside.words_missing,
        "provenance": _pairs(query.provenance),
    }


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "prompt": answer.prompt,
        "text": answer.text,
        "conditioned": CONDITIONED,
        "segments": [
            {
                "segment": segment.place,
                "number": segment.number,
                "trace_id": segment.query.trace_id,
                "start": segment.start,
                "end": segment.end,
                "text": segment.text,
                "leading": [
                    {
                        name: _plain(getattr(hit, name))
                        for name in ("rank", "passage_id", "source", "title", "score", "z_score")
                    }
                    for hit in segment.leading
                ],
            }
            for segment in answer.segments
        ],
    }


def _hit(hit: Hit) -> dict[str, Any]:
    told: dict[str, Any] = _plain(hit)
    told["published"] = hit.published and numbers.published_iso(hit.published, hit.published_precision)
    told["parts"] = [{"method": method, "rank": rank, "score": score} for method, rank, score in hit.parts]
    told["tokens"] = [
        {"text": hit.text[start:end], "start": start, "end": end, "share": share} for start, end, share in hit.tokens
    ]
    return told


def _comparison(report: Report) -> dict[str, Any]:
    compared = compare(*report.queries)

    def row(one: Compared) -> dict[str, Any]:
        places = [
            {"side": place.side, "rank": place.rank, "score": place.score} if place else None
            for place in (one.first, one.second)
        ]
        return {"passage_id": one.hit.passage_id, "first": places[0], "second": places[1], "moved": one.moved}

    return {
        "same_question": compared.same_question,
        "settings": [
            {"label": label, "first": first, "second": second} for label, first, second in wording.differing(compared)
        ],
        "tau": compared.tau,
        "proponents": [row(one) for one in compared.proponents],
        "opponents": [row(one) for one in compared.opponents],
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON data; a number that JSON has no word for is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value


def _pairs(rows: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"label": label, "value": value} for label, value in rows]


def block(report: Report) -> dict[str, Any]:
    """Return what a file carries of its own making: the traces, the settings, and a hash of each thing that it says."""
    return {
        "schema": SCHEMA,
        "version": library_versions()["proponent"],
        "lake": report.lake,
        "settings": report.settings.chosen(),
        "traces": [_traced(query) for query in report.queries],
    }


def _traced(query: TracedQuery) -> dict[str, Any]:
    beside = query.beside
    return {
        "trace": query.trace_id,
        "facts": dict(wording.settings(query)) | dict(query.provenance),
        "asked": _hash([query.prompt, query.target, _plain(query.parts), _plain(query.target_loss)]),
        "hits": [
            [hit.side, hit.rank, hit.passage_id, _plain(hit.score), _hash(_said_of(hit))]
            for hit in (*query.proponents, *query.opponents)
        ],
        "sources": _summed(beside.sources) if beside.sources else beside.sources_missing,
        "words": _hash([[_plain(hit) for hit in beside.words], beside.words_missing]),
    }


def _summed(sources: Sources) -> list[list[Any]]:
    # As numbers, because sums are computed anew, on another machine with other roundings.
    return [[group.label, group.n_passages, group.influence] for group in (*sources.by_source, *sources.by_time)]


def _said_of(hit: Hit) -> dict[str, Any]:
    # Shares of tokens are computed anew each time, on another machine with other roundings.
    return {name: value for name, value in _hit(hit).items() if name not in ("score", "tokens")}


def _hash(data: Any) -> str:
    return content_id("report", json.dumps(data, sort_keys=True))
