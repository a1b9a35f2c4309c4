"""Arrow schemas of the Lance tables, with a comment on every column.

Notable: tables that SQL reads have no float16, unsigned, large_string, dictionary or struct column, since one of those
breaks DuckDB's scan of the whole table or its pushed-down filters. The encodings' vectors therefore live in tables of
their own, which SQL never opens with their vectors.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .errors import InputError
from .ids import content_id
from .settings import CODE_BLOCK, DEFAULT_CODES

TABLE_MIGRATION: Final = 3
"""Number of the newest migration of tables: what this code writes, and the newest that it reads."""


def _field(name: str, kind: pa.DataType, comment: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"comment": comment})


DOCUMENTS: Final = pa.schema(
    [
        _field("doc_id", pa.string(), "Id of the document: a hash of its corpus and the corpus's own id."),
        _field("doc_key", pa.string(), "The corpus's own id of the document."),
        _field("corpus", pa.string(), "Name of the corpus that the document belongs to."),
        _field("source", pa.string(), "Where the document comes from, as the corpus says.", nullable=True),
        _field("published", pa.date32(), "Date of publication; the first day of a known month or year.", nullable=True),
        _field("published_precision", pa.string(), "How exact the date is: day, month or year.", nullable=True),
        _field("published_text", pa.string(), "The date as the corpus wrote it.", nullable=True),
        _field("title", pa.string(), "Title of the document.", nullable=True),
        _field("url", pa.string(), "Address of the document.", nullable=True),
        _field("author", pa.string(), "Author or authors of the document.", nullable=True),
        _field("language", pa.string(), "Language of the document.", nullable=True),
        _field("license", pa.string(), "Licence of the document.", nullable=True),
        _field("trained_on", pa.bool_(), "Whether the document was in the model's training data.", nullable=True),
        _field("n_passages", pa.int32(), "Passages that the document is cut into."),
        _field("metadata", pa.string(), "Every other field of the corpus's row, as JSON text."),
        _field("content_hash", pa.string(), "Hash of the row that the document was made from."),
        _field("run_id", pa.string(), "Run that added this version of the document."),
    ]
)

PASSAGES: Final = pa.schema(
    [
        _field("passage_id", pa.string(), "Id of the passage: a hash of its document, ordinal and text."),
        _field("doc_id", pa.string(), "Document that the passage is part of."),
        _field("ordinal", pa.int32(), "Place of the passage in its document, from 0."),
        _field("char_start", pa.int64(), "First character of the passage in its document's text."),
        _field("char_end", pa.int64(), "Character after the last one of the passage in its document's text."),
        _field("n_tokens", pa.int32(), "Tokens of the passage under the tokenizer that cut it.", nullable=True),
        _field("text", pa.string(), "Text of the passage."),
        _field("text_hash", pa.string(), "Hash of the text; passages of equal text share it and their encoding."),
    ]
)

MENTIONS: Final = pa.schema(
    [
        _field("passage_id", pa.string(), "Passage that mentions the entity."),
        _field("doc_id", pa.string(), "Document of that passage."),
        _field("entity", pa.string(), "Canonical name of the entity."),
        _field("surface", pa.string(), "The entity as the passage spells it.", nullable=True),
        _field("type", pa.string(), "Kind of entity.", nullable=True),
        _field("origin", pa.string(), "Where the mention comes from: corpus, gazetteer NAME or spacy NAME."),
        _field(
            "char_start", pa.int64(), "First character of the mention in the passage, if it is there.", nullable=True
        ),
        _field("char_end", pa.int64(), "Character after the mention in the passage, if it is there.", nullable=True),
    ]
)

REJECTS: Final = pa.schema(
    [
        _field("run_id", pa.string(), "Run that met the row."),
        _field("corpus", pa.string(), "Corpus that was being ingested."),
        _field("file", pa.string(), "File that the row is in."),
        _field("row", pa.int64(), "Line or row of the file, from 1."),
        _field("reason", pa.string(), "Why the row was not taken."),
        _field("raw", pa.binary(), "The row as it was read."),
    ]
)

QUERIES: Final = pa.schema(
    [
        _field("query_id", pa.string(), "Query that was encoded."),
        _field("encoder", pa.string(), "Encoder that encoded it."),
        _field("norm", pa.float32(), "Norm of the whitened gradient."),
        _field("loss", pa.float32(), "Summed cross-entropy of the target's tokens, in nats; the mean over several."),
        _field("n_tokens", pa.int32(), "Tokens of the target; of several, all together."),
        _field("vector", pa.list_(pa.float32()), "The whitened gradient, of norm `norm`."),
    ]
)

HITS: Final = pa.schema(
    [
        _field("trace_id", pa.string(), "Trace that found the passage."),
        _field("side", pa.string(), "'proponent' pushes the model towards the target, 'opponent' away from it."),
        _field("rank", pa.int32(), "Rank within its side, from 1."),
        _field("passage_id", pa.string(), "The passage."),
        _field("score", pa.float64(), "Score of the passage by the trace's method; comparable within one trace."),
        _field("percentile", pa.float64(), "Per cent of all candidates that score lower.", nullable=True),
    ]
)

NEAR_DUPLICATES: Final = pa.schema(
    [
        _field("doc_id", pa.string(), "A document that says nearly the same as another one."),
        _field("of_doc_id", pa.string(), "That other document, which is marked as a near-duplicate of none."),
        _field("similarity", pa.float64(), "Share of their shingles that both have (Jaccard), from 0 to 1."),
        _field("content_hash", pa.string(), "The document's content_hash when they were compared."),
        _field("of_content_hash", pa.string(), "The other document's content_hash when they were compared."),
    ]
)

LAKE_TABLES: Final[Mapping[str, pa.Schema]] = {
    "documents": DOCUMENTS,
    "passages": PASSAGES,
    "mentions": MENTIONS,
    "rejects": REJECTS,
    "queries": QUERIES,
    "hits": HITS,
    "near_duplicates": NEAR_DUPLICATES,
}
"""Tables that a lake has from the start; snapshots of older ones have no `near_duplicates`."""


NORMS: Final = pa.schema(
    [
        _field("text_hash", pa.string(), "Hash of the encoded text."),
        _field("norm", pa.float32(), "Norm of its stored unit vector under the curvature."),
    ]
)


SUMS: Final = pa.schema(
    [
        _field("kind", pa.string(), "What the passages are grouped by."),
        _field("name", pa.string(), "The group; null where its passages have none.", nullable=True),
        _field("n_passages", pa.int64(), "Passages of the group that are encoded."),
        _field("n_summed", pa.int64(), "Passages added to the sum or taken off it since it was made.", nullable=True),
        _field("sum", pa.list_(pa.float64()), "Sum of their vectors (d,), if it is kept.", nullable=True),
    ]
)


def encodings_table(encoder: str) -> str:
    """Return the name of the table that holds an encoder's encodings."""
    return f"encodings_{encoder}"


def index_table(encoder: str) -> str:
    """Return the name of the table that holds an encoder's indexable vectors."""
    return f"index_{encoder}"


def norms_table(curvature_id: str, codes: str) -> str:
    """Return the name of the table that holds the norms of an encoder's encodings under one curvature.

    Vectors that are stored anew in other codes have other norms, by what rounding took off.
    """
    return f"norms_{curvature_id}_{codes}"


def encodings_schema(dim: int, codes: str = DEFAULT_CODES) -> pa.Schema:
    """Return the schema of an encodings table whose vectors are stored in a format of `CODES`."""
    return pa.schema(
        [
            _field("text_hash", pa.string(), "Hash of the encoded text; passages.text_hash joins with it."),
            _field("norm", pa.float32(), "Norm of the whitened gradient before normalisation."),
            _field("loss", pa.float32(), "Summed cross-entropy of the text, in nats."),
            _field("n_tokens", pa.int32(), "Tokens of the text under the encoder's tokenizer."),
            *_code_fields(dim, codes),
        ]
    )


def _code_fields(dim: int, codes: str) -> list[pa.Field]:
    scales = _field("scales", pa.list_(pa.float16(), dim // CODE_BLOCK), "One scale for each block of components.")
    if codes == "float16":
        return [_field("codes", pa.list_(pa.float16(), dim), "Components of the unit vector times sqrt(dim).")]
    if codes == "int4":
        comment = "Components of the unit vector, as multiples of their scale, two in a byte."
        return [_field("codes", pa.list_(pa.int8(), dim // 2), comment), scales]
    return [
        _field("codes", pa.list_(pa.int8(), dim), "Components of the unit vector, as multiples of their scale."),
        scales,
    ]


def codes_of(schema: pa.Schema) -> str:
    """Return the format of an encodings table's vectors, from the table's own schema at any of its versions."""
    codes = schema.field("codes").type
    if pa.types.is_float16(codes.value_type):
        return "float16"
    return "int8" if codes.list_size == CODE_BLOCK * schema.field("scales").type.list_size else "int4"


def code_columns(schema: pa.Schema) -> list[str]:
    """Return which columns of an encodings table hold its vectors."""
    return [name for name in ("codes", "scales") if name in schema.names]


def index_schema(dim: int) -> pa.Schema:
    """Return the schema of an index table, whose index has codes of the unit vectors (dim,), and no row a vector."""
    return pa.schema(
        [
            _field("text_hash", pa.string(), "Hash of the encoded text."),
            _field("vector", pa.list_(pa.float16(), dim), "Always null; the index has the vector.", nullable=True),
        ]
    )


def column_comments(schema: pa.Schema) -> dict[str, str]:
    """Return every column's comment."""
    return {field.name: (field.metadata or {}).get(b"comment", b"").decode() for field in schema}


def conform(data: pa.Table, schema: pa.Schema, *, table: str) -> pa.Table:
    """Return the data with exactly the schema's columns, types and comments.

    Raises InputError when a column is missing, unknown or of another type, or when a column that must not be null is:
    Lance itself accepts fragments that lack columns, and fills them with nulls.
    """
    missing = [name for name in schema.names if name not in data.column_names]
    unknown = [name for name in data.column_names if name not in schema.names]
    if missing or unknown:
        raise InputError(f"rows for table {table!r}: missing columns {missing}, unknown columns {unknown}")
    columns = []
    for field in schema:
        column = data.column(field.name)
        if column.type != field.type:
            raise InputError(f"rows for table {table!r}: column {field.name!r} is {column.type}, not {field.type}")
        if column.null_count and not field.nullable:
            raise InputError(f"rows for table {table!r}: column {field.name!r} has {column.null_count} nulls")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def rows_hash(data: pa.Table) -> str:
    """Return a hash of the rows' values that does not depend on how Arrow lays them out in memory.

    Data pages of Lance carry no checksum, so this is what finds a flipped byte.
    """
    parts: list[str | int | bytes | memoryview] = [data.num_rows]
    for name in data.column_names:
        parts += [name, *_column_bytes(data.column(name).combine_chunks())]
    return content_id("rows", *parts)


def _column_bytes(column: pa.Array) -> list[bytes | memoryview]:
    nulls = pc.is_null(column).to_numpy(zero_copy_only=False).tobytes()
    if pa.types.is_fixed_size_list(column.type):
        return [nulls, column.flatten().to_numpy(zero_copy_only=False).tobytes()]
    if pa.types.is_list(column.type):
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).tobytes()
        return [nulls, lengths, column.flatten().to_numpy(zero_copy_only=False).tobytes()]
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        column = column.cast(pa.binary())
        lengths = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False).tobytes()
        return [nulls, lengths, _joined(pc.fill_null(column, b""))]
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    elif pa.types.is_date(column.type):
        column = column.cast(pa.int32())
    return [nulls, pc.fill_null(column, 0).to_numpy(zero_copy_only=False).tobytes()]


def _joined(column: pa.BinaryArray) -> memoryview:
    """Return all values one after the other, as they lie in memory, without a copy of them."""
    _, ends, data = column.buffers()
    if not len(column) or data is None:
        return memoryview(b"")
    offsets = np.frombuffer(ends, np.int32, len(column) + 1, column.offset * 4)
    return memoryview(data)[int(offsets[0]) : int(offsets[-1])]
