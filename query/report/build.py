"""A report's content from a lake: stored traces, their hits, and where all of it comes from."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from proponent.query.export.files import whole
from proponent.query.session import Session
from proponent.query.stored import resolve_trace
from proponent.schema import catalog as models
from proponent.schema.errors import InputError
from proponent.schema.settings import BM25, HYBRID, IDENTITY
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot, get_snapshot, readable_snapshots
from proponent.store.withdrawn import withdrawn_hits

from .content import AskedPart, Hit, Report, Side, TracedQuery
from .render import render_html, render_markdown

_CONTEXT_CHARACTERS: Final = 2000
_CODES: Final = {"float16": "float16", "int8": "int8 with block scales", "int4": "int4 with block scales"}
_MOMENTS: Final = {
    "adam": "of every weight, from the optimizer",
    "adam-factored": "by rows and columns, from the optimizer",
    "adafactor": "by rows and columns, from the optimizer",
    "estimated": "by rows and columns, from a sample of the corpus",
    "none": "gradients are not corrected",
}
_RENDERERS: Final = {".html": render_html, ".htm": render_html, ".md": render_markdown}


def build_report(lake: LakeStore, session: Session, names: list[str], *, title: str | None = None) -> Report:
    """Collect everything that a report of some traces says.

    The report's date is that of its newest trace, so that the same traces give the same report.
    """
    if not names:
        raise InputError("a report needs at least one trace")
    ids = list(dict.fromkeys(resolve_trace(lake, name) for name in names))
    facts = [session.trusted("report_trace", {"trace_id": trace_id}).to_pylist()[0] for trace_id in ids]
    hits = {trace_id: session.trusted("report_hits", {"trace_id": trace_id}) for trace_id in ids}
    shown = pc.unique(pa.concat_tables(hits.values())["passage_id"].combine_chunks())
    with ExitStack() as opened:
        # Passages and documents are shown as they were searched; what has changed since does not change a report.
        searched = {fact["snapshot"] for fact in facts}
        erased = searched - {one.snapshot_id for one in readable_snapshots(lake.catalog)}
        then = {
            number: opened.enter_context(Session(lake, get_snapshot(lake.catalog, number), passages=shown))
            for number in searched - erased
        }
        then |= dict.fromkeys(erased, session)
        rows = {trace_id: found.to_pylist() for trace_id, found in hits.items()}
        queries = tuple(_query(rows[fact["trace_id"]], session, then[fact["snapshot"]], fact) for fact in facts)
    return Report(
        title=title or _title(queries),
        created_at=max(query.created_at for query in queries),
        queries=queries,
        provenance=_provenance(lake, facts),
        notes=(
            *(_erased(number, session.at) for number in sorted(erased)),
            *(note for trace_id in ids for note in _withdrawn(lake, session.at, trace_id, alone=len(ids) == 1)),
        ),
    )


def write_report(report: Report, path: Path) -> Path:
    """Write a report as HTML or Markdown, by the file's suffix; it appears whole or not at all.

    Raises InputError for another suffix.
    """
    renderer = _RENDERERS.get(path.suffix.lower())
    if renderer is None:
        raise InputError(f"{path}: a report is written as .html or .md")
    with whole(path) as partial:
        partial.write_text(renderer(report), encoding="utf-8")
    return path


def _erased(number: int, present: Snapshot) -> str:
    return (
        f"Snapshot {number}, which was searched, has been erased since, because withdrawn documents were forgotten. "
        f"Passages are shown as snapshot {present.snapshot_id} has them; those that it does not have are left out."
    )


def _withdrawn(lake: LakeStore, at: Snapshot, trace_id: str, *, alone: bool) -> Iterator[str]:
    with lake.catalog.read() as catalog:
        gone = withdrawn_hits(lake, at, catalog.get_one(models.Trace, trace_id))
    if gone:
        sides = {side: [str(place.rank) for place in gone if place.side == side] for side in ("proponent", "opponent")}
        ranks = "; ".join(f"{side} {', '.join(ranks)}" for side, ranks in sides.items() if ranks)
        of = "" if alone else f" of trace {trace_id}"
        hits = f"{len(gone)} hits{of} were" if len(gone) > 1 else f"A hit{of} was"
        yield f"{hits} withdrawn since, with the document: {ranks}. What is shown keeps the ranks that it had."


def _title(queries: tuple[TracedQuery, ...]) -> str:
    if len(queries) > 1:
        return f"Training data behind {len(queries)} answers"
    if queries[0].n_queries > 1:
        return f"Training data behind the answers to {queries[0].n_queries:,} queries"
    target = queries[0].target.strip()
    if queries[0].method == BM25:
        return f"Passages that share words with ‘{target}’"
    return f"Training data behind {target}" if len(queries[0].parts) > 1 else f"Training data behind ‘{target}’"


def _query(rows: list[dict[str, Any]], session: Session, then: Session, fact: dict[str, Any]) -> TracedQuery:
    found = then.trusted("report_passages", {"passage_ids": [row["passage_id"] for row in rows]}).to_pylist()
    passages = {passage["passage_id"]: passage for passage in found}
    if then is session:  # what was searched is erased, and the report says that some hits may be left out
        rows = [row for row in rows if row["passage_id"] in passages]
    parts = _parts(session, fact) if fact["method"] == HYBRID else {}
    hits = [_hit(row | passages[row["passage_id"]], parts.get(row["passage_id"], ())) for row in rows]
    made_with = json.loads(fact["settings"])
    return TracedQuery(
        trace_id=fact["trace_id"],
        query_id=fact["query_id"],
        prompt=fact["prompt"],
        target=fact["target"],
        parts=tuple(AskedPart(**part) for part in json.loads(fact["parts"] or "[]")),
        target_loss=fact["target_loss"],
        n_target_tokens=fact["target_tokens"],
        completed_by_model=fact["completed"],
        method=fact["method"],
        encoder=fact["encoder"],
        curvature=fact["curvature"],
        fused=made_with.get("fused", {}).get("method"),
        rank_constant=made_with.get("rank_constant"),
        recomputed=_recomputed(session, fact["trace_id"]),
        filter=fact["filter"],
        k=fact["k"],
        exact=fact["exact"],
        recall=fact["recall"],
        n_candidates=fact["n_candidates"],
        snapshot=str(fact["snapshot"]),
        created_at=fact["created_at"],
        proponents=tuple(hit for hit in hits if hit.side == "proponent"),
        opponents=tuple(hit for hit in hits if hit.side == "opponent"),
    )


def _parts(session: Session, fact: dict[str, Any]) -> dict[str, tuple[tuple[str, int, float], ...]]:
    """Return the ranks and scores that a hybrid's hits are made of, by passage_id."""
    of_trace = session.sql("SELECT * FROM fused WHERE trace_id = $trace", {"trace": fact["trace_id"]}).to_dicts()
    return {
        row["passage_id"]: tuple(
            (method, row[f"{part}_rank"], row[f"{part}_score"])
            for method, part in ((row["influence_method"], "influence"), (BM25, "bm25"))
            if row[f"{part}_rank"] is not None
        )
        for row in of_trace
    }


def _recomputed(session: Session, trace_id: str) -> tuple[tuple[Side, int, float | None], ...]:
    """Return what became of the trace's order with full gradients, by the recomputation of most hits."""
    rows = session.sql(
        "SELECT side, n_texts, tau FROM recomputations WHERE trace_id = $trace "
        "QUALIFY n = max(n) OVER () ORDER BY side DESC",
        {"trace": trace_id},
    )
    return tuple((row["side"], row["n_texts"], row["tau"]) for row in rows.to_dicts())


def _hit(row: dict[str, Any], parts: tuple[tuple[str, int, float], ...]) -> Hit:
    return Hit(
        side=row["side"],
        rank=row["rank"],
        passage_id=row["passage_id"],
        score=row["score"],
        percentile=row["percentile"],
        text=row["text"],
        before=(row["before"] or "")[-_CONTEXT_CHARACTERS:],
        after=(row["after"] or "")[:_CONTEXT_CHARACTERS],
        doc_id=row["doc_id"],
        doc_key=row["doc_key"],
        corpus=row["corpus"],
        source=row["source"],
        published=row["published"],
        published_precision=row["published_precision"],
        title=row["title"],
        url=row["url"],
        entities=tuple(row["entities"]),
        license=row["license"],
        trained_on=row["trained_on"],
        parts=parts,
    )


def _provenance(lake: LakeStore, facts: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    rows: dict[tuple[str, str], None] = {}
    for fact in facts:
        made_with = json.loads(fact["settings"])
        for row in (
            ("Lake", f"{lake.root.name}, format {lake.config.format}"),
            ("Snapshot searched", str(fact["snapshot"])),
            *(_encoded(fact, made_with) if fact["encoder"] else ()),
            *((("Words", _words(made_with["tokenizer"])),) if "tokenizer" in made_with else ()),
            ("Method", fact["method"]),
            ("Versions", ", ".join(f"{name} {version}" for name, version in made_with["versions"].items())),
        ):
            rows[row] = None
    ids = " ".join(fact["trace_id"] for fact in facts[:3]) + (" ..." if len(facts) > 3 else "")
    rows["Made again by", f"proponent report LAKE {ids} -o FILE"] = None
    return tuple(rows)


def _encoded(fact: dict[str, Any], made_with: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """List which model and encoder the gradients are of."""
    codes = made_with.get("codes", "int8")  # traces from before there were others do not say
    diagnostics = json.loads(fact["curvature_diagnostics"] or "{}")
    given = json.loads(fact["encoder_settings"])
    settings = sorted((name, value) for name, value in given.items() if value is not None)
    return (
        ("Model", f"{fact['model']}: {fact['architecture']}, {fact['n_parameters']:,} parameters"),
        ("Weights", fact["weights_hash"]),
        ("Tokenizer", fact["tokenizer_hash"]),
        ("Optimizer state", fact["moments_hash"] or "none registered"),
        ("Encoder", f"{fact['encoder']} ({fact['encoder_id']}), d = {fact['dim']:,}"),
        ("Encoder settings", ", ".join(f"{name} {value}" for name, value in settings)),
        ("Stored vectors", _stored(codes, made_with.get("fidelity") or {})),
        ("Second moments", f"{fact['moments']}: {_MOMENTS[fact['moments']]}"),
        ("Parameters seen", f"{fact['coverage']:.1%}: attention and MLP matrices"),
        ("Curvature", _curvature(fact, diagnostics)),
    )


def _words(tokenizer: dict[str, Any]) -> str:
    told = ", ".join(f"{name} {value}" for name, value in sorted(tokenizer.items()))
    return f"BM25 of Lance (k1 1.2, b 0.75); {told}"


def _stored(codes: str, fidelity: dict[str, Any]) -> str:
    if fidelity.get("codes") != codes:
        return f"{_CODES[codes]}; what they lose was not measured before the trace"
    return (
        f"{_CODES[codes]}; they keep {fidelity['top10_overlap']:.1%} of the ten best, rank correlation "
        f"{fidelity['rank_correlation']:.4f} (sample of {fidelity['sample']:,}, against {fidelity['against']})"
    )


def _curvature(fact: dict[str, Any], diagnostics: dict[str, Any]) -> str:
    if fact["curvature"] == IDENTITY:
        return "none"
    told = f"{fact['curvature']}, fitted on {fact['curvature_rows'] or 0:,}"
    if "queries" in diagnostics:
        return f"{told} queries, lambda {fact['curvature_mixing']:.3g} ({diagnostics['mixing_chosen']})"
    shrinkage = ", ".join(f"{weight:.2f}" for weight in diagnostics.get("rho", []))
    return f"{told} passages, {diagnostics.get('shrinkage', 'no')} shrinkage {shrinkage}"
