"""Traces in the record format of the viewer that came with the TrackStar paper (arXiv:2410.17413).

A line for each trace: what was asked, and of either side the texts, ids and scores of its hits, best first.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proponent.query.session import Session
from proponent.schema.settings import SIDES, ExchangeSettings
from proponent.store.lake import LakeStore

from .files import whole
from .gold import gold_passages
from .traced import Traced, told_id, traced


def write_viewer(
    lake: LakeStore, session: Session, trace_ids: Sequence[str], path: Path, exchange: ExchangeSettings
) -> dict[str, int]:
    """Write a line for each trace; return how many traces and hits they are."""
    counts = {"traces": 0, "hits": 0}
    with whole(path) as partial, partial.open("w", encoding="utf-8") as sink:
        for one in traced(lake, session, trace_ids):
            gold = gold_passages(session, [one.query])
            sink.write(json.dumps(_record(one, gold, exchange), ensure_ascii=False) + "\n")
            counts["traces"] += 1
            counts["hits"] += len(one.proponents) + len(one.opponents)
    return counts


def _record(one: Traced, gold: Mapping[str, set[str]], exchange: ExchangeSettings) -> dict[str, Any]:
    query, facts = one.query, one.query.facts or {}
    record: dict[str, Any] = {
        "example_id": told_id(query, exchange),
        "query_set": query.query_set or "",
        "inputs_plaintext": query.prompt,
        "targets_plaintext": query.target,
    }
    for side, hits in zip(SIDES, (one.proponents, one.opponents), strict=True):
        record[f"{side}s"] = [hit["text"] or "" for hit in hits]
        record[f"{side}_ids"] = [hit["passage_id"] for hit in hits]
        record[f"{side}_scores"] = [hit["score"] for hit in hits]
    fact_id = facts.get("fact_id", facts.get("id"))
    record |= {name: value for name, value in (("fact_id", fact_id), ("relation", facts.get("relation"))) if value}
    if query.query_id in gold:
        record["proponent_correct"] = [hit["passage_id"] in gold[query.query_id] for hit in one.proponents]
    return record
