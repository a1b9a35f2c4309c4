"""Columns of what functions in SQL return: plain Arrow, so that a session can declare them without torch."""

from typing import Final

import pyarrow as pa

from proponent.schema.tables import DOCUMENTS, PASSAGES

OF_PASSAGES: Final = ("text", "ordinal")
OF_DOCUMENTS: Final = (
    "doc_id",
    "doc_key",
    "corpus",
    "source",
    "published",
    "published_precision",
    "title",
    "url",
    "author",
    "language",
    "license",
    "trained_on",
    "metadata",
)

LIVE_HITS: Final = pa.schema(
    [
        ("query_id", pa.string()),
        ("prompt", pa.string()),
        ("target", pa.string()),
        ("method", pa.string()),
        ("encoder", pa.string()),
        ("curvature", pa.string()),
        ("snapshot", pa.int64()),
        ("exact", pa.bool_()),
        ("side", pa.string()),
        ("rank", pa.int32()),
        ("score", pa.float64()),
        ("percentile", pa.float64()),
        ("z_score", pa.float64()),
        ("passage_id", pa.string()),
        *((name, PASSAGES.field(name).type) for name in OF_PASSAGES),
        *((name, DOCUMENTS.field(name).type) for name in OF_DOCUMENTS),
        ("entities", pa.list_(pa.string())),
    ]
)
"""Hits that are not stored: the columns of relation `influence` that they can have, named and ordered as there."""

GROUPS: Final = pa.schema(
    [
        ("kind", pa.string()),
        ("name", pa.string()),
        ("others", pa.int64()),
        ("n_passages", pa.int64()),
        ("influence", pa.float64()),
        ("mean", pa.float64()),
        ("share", pa.float64()),
        ("passage_share", pa.float64()),
    ]
)
"""Columns of the influence of groups: `groups.group_influence` says what they are."""

COMPARED: Final = pa.schema(
    [
        ("side", pa.string()),
        ("passage_id", pa.string()),
        ("rank_a", pa.int32()),
        ("rank_b", pa.int32()),
        ("rank_change", pa.int32()),
        ("score_a", pa.float64()),
        ("score_b", pa.float64()),
        ("z_score_a", pa.float64()),
        ("z_score_b", pa.float64()),
        *((name, PASSAGES.field(name).type) for name in OF_PASSAGES),
        *((name, DOCUMENTS.field(name).type) for name in OF_DOCUMENTS),
    ]
)
"""Hits of two traces side by side."""

_DUCKDB: Final = {
    pa.string(): "VARCHAR",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.list_(pa.string()): "VARCHAR[]",
}


def struct_list(schema: pa.Schema) -> str:
    """Return the DuckDB type of a list of a schema's rows."""
    return f"STRUCT({', '.join(f'{field.name} {_DUCKDB[field.type]}' for field in schema)})[]"
