"""Scores that stand beside the one that hits are ordered by: the parts of a hybrid, and full gradients."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from proponent.schema.settings import HYBRID

if TYPE_CHECKING:
    from proponent.lake import Lake
    from proponent.query.results import Result

Key = tuple[str, str, str]
"""trace_id, side and passage_id of a hit."""

_FUSED = """
SELECT influence.*, fused.* EXCLUDE (trace_id, passage_id, rank, score)
FROM influence JOIN fused USING (trace_id, passage_id)
WHERE trace_id IN (SELECT unnest($ids)) ORDER BY list_position($ids, trace_id), influence.rank
"""
_RECOMPUTED = """
SELECT influence.*, recomputed.* EXCLUDE (trace_id, side, n, passage_id, rank, score)
FROM influence LEFT JOIN (SELECT * FROM recomputed WHERE n = $n) AS recomputed USING (trace_id, side, passage_id)
WHERE trace_id IN (SELECT unnest($ids)) ORDER BY list_position($ids, trace_id), side DESC, influence.rank
"""


def hits_with_scores(opened: "Lake", ids: Sequence[str], *, method: str, recomputed: int | None) -> "Result":
    """Return the hits of traces as relation `influence` has them, with the other scores that they have."""
    if method == HYBRID:
        return opened.sql(_FUSED, {"ids": list(ids)})
    if recomputed is not None:
        return opened.sql(_RECOMPUTED, {"ids": list(ids), "n": recomputed})
    return opened.hits(ids)


def shown_scores(hit: Mapping[str, Any]) -> dict[str, Any]:
    """Return the other scores of a hit as columns of a table for people."""
    if "bm25_score" in hit:
        parts = {hit["influence_method"]: "influence", "bm25": "bm25"}
        return {name: _with_rank(hit[f"{part}_rank"], hit[f"{part}_score"]) for name, part in parts.items()}
    return {"in full": hit["score_full"]} if "score_full" in hit else {}


def _with_rank(rank: int | None, score: float | None) -> str | None:
    return None if rank is None else f"{score:.4g} (rank {rank})"


def told_orders(orders: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return in words how the orders of a trace's sides change with full gradients."""
    return [
        f"{one['side']}s with full gradients: Kendall tau {_tau(one['tau'])} over {_texts(one['texts'])} "
        f"(without codes {_tau(one['tau_codes'])}, then without curvature {_tau(one['tau_curvature'])}, "
        f"then without projection {_tau(one['tau_projection'])})"
        for one in orders
    ]


def _texts(n: int) -> str:
    return "1 text" if n == 1 else f"{n} texts"


def _tau(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
