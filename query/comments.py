"""What the relations of a session and their columns say of themselves, as COMMENTs."""

from collections.abc import Mapping
from typing import Any, Final, cast

import duckdb
from sqlalchemy import Column, Table

from proponent.schema import catalog as models
from proponent.schema.settings import CODE_BLOCK
from proponent.schema.tables import LAKE_TABLES, NEAR_DUPLICATES, column_comments, encodings_schema, encodings_table

from .statement import literal

_BULK: Final = {("publications", "plan"), ("batches", "files"), ("units", "result")}
"""Columns of the catalog that grow with every fragment and tell a reader nothing."""
_ENCODINGS: Final = encodings_table("")
_STORED: Final = ("documents", "passages", "mentions", "hits", "rejects")
_COMMENTS: Final = {
    "documents": "Documents, with their metadata.",
    "passages": "Passages: the pieces of documents that fit the model.",
    "mentions": "Entities that passages mention.",
    "hits": "Passages that traces found.",
    "rejects": "Rows of corpora that could not be taken.",
    "near_duplicates": "Documents that say nearly the same as another one, as the last `duplicates` found them.",
    "encodings": "Which passages are encoded by which encoder, without the vectors.",
    "influence": "Hits with their query, passage, document and entities: the relation to start from.",
    "fused": "Hits of hybrid traces with the ranks and scores that they join.",
    "recomputed": "Hits that were scored again with full gradients.",
}
_FUSED: Final = {
    "influence_method": "Method of the trace of gradients.",
    "influence_trace": "That trace; null where it does not list the passage.",
    "influence_rank": "Rank of the passage in it.",
    "influence_score": "Score of the passage in it.",
    "bm25_trace": "The trace by words; null where it does not list the passage.",
    "bm25_rank": "Rank of the passage in it.",
    "bm25_score": "Score of the passage in it.",
}
_RECOMPUTED: Final = {
    "n": "So many first hits of the side were asked for.",
    "score_exact": "Score of the passage encoded again in float32, without what codes lose.",
    "score_unwhitened": "The same without a curvature, R = I.",
    "score_full": "Score of the gradients themselves, without codes, curvature and projection.",
}


def catalog_columns(table: Table) -> list[Column[Any]]:
    """Return the columns of a table of the catalog that are shown."""
    return [column for column in table.columns if (table.name, column.name) not in _BULK]


def comment(connection: duckdb.DuckDBPyConnection) -> None:
    """Say of every relation of a session, and of its columns, what it is."""
    said = [*_of_catalog(), *_of_encodings(connection), *_of_tables(), *_of_views(connection)]
    connection.execute(";".join(line for one in said for line in one))


def _of_catalog() -> list[list[str]]:
    tables = [(cast("Table", mapper.local_table), mapper.class_) for mapper in models.Base.registry.mappers]
    return [
        _said(table.name, str(of.__doc__), {one.name: one.comment or "" for one in catalog_columns(table)})
        for table, of in tables
    ]


def _of_encodings(connection: duckdb.DuckDBPyConnection) -> list[list[str]]:
    views = connection.execute("SELECT view_name FROM duckdb_views() WHERE starts_with(view_name, $1)", [_ENCODINGS])
    described = column_comments(encodings_schema(CODE_BLOCK))
    columns = {name: described[name] for name in ("text_hash", "norm", "loss", "n_tokens")}
    told = "Encodings of encoder {} by text, without the vectors."
    said = [_said(name, told.format(name.removeprefix(_ENCODINGS)), columns) for (name,) in views.fetchall()]
    columns["encoder"] = "Encoder that encoded the text."
    return [*said, _said("stored_encodings", "Encodings of all encoders by text, without the vectors.", columns)]


def _of_tables() -> list[list[str]]:
    said = [_said(name, _COMMENTS[name], column_comments(LAKE_TABLES[name])) for name in _STORED]
    told = "Near-duplicates with those that are out of date."
    return [*said, _said("stored_near_duplicates", told, column_comments(NEAR_DUPLICATES))]


def _of_views(connection: duckdb.DuckDBPyConnection) -> list[list[str]]:
    known: dict[str, str] = {}
    for name in _STORED:
        known |= column_comments(LAKE_TABLES[name])
    for table in (models.Query.__table__, models.Trace.__table__):
        known |= {column.name: column.comment or "" for column in table.columns}
    known["entities"] = "Canonical names of the entities that the passage mentions."
    known["trained_on"] = "Whether the model was trained on it; if not, the score says what training on it would do."
    known["z_score"] = "Standard deviations of random texts' scores that the score is above their mean."
    known["query_metadata"] = known["metadata"]
    known["metadata"] = column_comments(LAKE_TABLES["documents"])["metadata"]
    known["norm"], known["loss"] = "Norm of the whitened gradient.", "Summed cross-entropy of the text, in nats."
    known |= column_comments(NEAR_DUPLICATES)
    known |= _FUSED | _RECOMPUTED
    said = []
    for view in ("encodings", "near_duplicates", "influence", "fused", "recomputed"):
        names = [row[0] for row in connection.execute(f"DESCRIBE {view}").fetchall()]
        said.append(_said(view, _COMMENTS[view], {name: known.get(name, "") for name in names}))
    return said


def _said(relation: str, told: str, columns: Mapping[str, str]) -> list[str]:
    """Return the statements that say it."""
    return [
        f"COMMENT ON VIEW {relation} IS {literal(told)}",
        *(f'COMMENT ON COLUMN {relation}."{column}" IS {literal(text)}' for column, text in columns.items()),
    ]
