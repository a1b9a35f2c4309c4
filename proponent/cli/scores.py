"""What stands beside the score that hits are ordered by: the parts of a hybrid, z-scores, and full gradients."""

from collections.abc import Mapping, Sequence
from typing import Any


def shown_scores(hit: Mapping[str, Any]) -> dict[str, Any]:
    """Return the other scores of a hit as columns of a table for people."""
    if "bm25_score" in hit:
        parts = {hit["influence_method"]: "influence", "bm25": "bm25"}
        return {name: _with_rank(hit[f"{part}_rank"], hit[f"{part}_score"]) for name, part in parts.items()}
    standing = {} if hit.get("z_score") is None else {"z": round(hit["z_score"], 1)}
    return standing | ({"in full": hit["score_full"]} if "score_full" in hit else {})


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
