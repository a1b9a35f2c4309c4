"""Tables have comments and safe types, only rows that fit are taken, and a hash sees every value."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.schema.errors import InputError
from proponent.schema.settings import CODE_BLOCK, CODES
from proponent.schema.tables import (
    LAKE_TABLES,
    NORMS,
    QUERIES,
    REJECTS,
    code_columns,
    codes_of,
    column_comments,
    conform,
    encodings_schema,
    index_schema,
    rows_hash,
)

SCHEMAS = {
    **LAKE_TABLES,
    **{f"encodings_{codes}": encodings_schema(128, codes) for codes in CODES},
    "norms_x": NORMS,
    "index_x": index_schema(128),
}


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_column_has_a_comment(table: str) -> None:
    comments = column_comments(SCHEMAS[table])
    assert list(comments) == SCHEMAS[table].names
    assert all(comment.endswith(".") for comment in comments.values())


@pytest.mark.parametrize("table", LAKE_TABLES)
def test_tables_that_sql_reads_have_only_types_that_duckdb_can_scan(table: str) -> None:
    unsafe: list[Callable[[pa.DataType], bool]] = [
        pa.types.is_float16,
        pa.types.is_unsigned_integer,
        pa.types.is_large_string,
        pa.types.is_dictionary,
        pa.types.is_struct,
    ]
    assert not [field for field in LAKE_TABLES[table] if any(check(field.type) for check in unsafe)]


def test_an_encoding_has_a_scale_for_every_block_of_codes() -> None:
    schema = encodings_schema(4 * CODE_BLOCK)
    assert schema.field("codes").type.list_size == 4 * CODE_BLOCK
    assert schema.field("scales").type.list_size == 4


@pytest.mark.parametrize("dim", [CODE_BLOCK, 2 * CODE_BLOCK, 10_752])
@pytest.mark.parametrize("codes", CODES)
def test_a_table_says_itself_in_which_format_its_vectors_are(codes: str, dim: int) -> None:
    schema = encodings_schema(dim, codes)
    assert codes_of(schema) == codes
    assert code_columns(schema) == (["codes"] if codes == "float16" else ["codes", "scales"])


def test_int8_codes_are_stored_as_they_always_were() -> None:
    expected = pa.schema(
        [
            ("text_hash", pa.string()),
            ("norm", pa.float32()),
            ("loss", pa.float32()),
            ("n_tokens", pa.int32()),
            ("codes", pa.list_(pa.int8(), 128)),
            ("scales", pa.list_(pa.float16(), 2)),
        ]
    )
    stored = encodings_schema(128)
    assert [(field.name, field.type) for field in stored] == [(field.name, field.type) for field in expected]
    assert not any(field.nullable for field in stored)


def reject(**changes: object) -> pa.Table:
    row = {"run_id": "r", "corpus": "c", "file": "f", "row": 1, "reason": "bad", "raw": b"x"}
    return pa.Table.from_pylist([row | changes])


def test_conforming_rows_get_the_schema_and_its_order() -> None:
    shuffled = reject().select(["raw", "row", "corpus", "run_id", "reason", "file"])
    assert conform(shuffled, REJECTS, table="rejects").schema.equals(REJECTS, check_metadata=True)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (reject().drop_columns(["raw"]), "missing columns \\['raw'\\]"),
        (reject(extra=1), "unknown columns \\['extra'\\]"),
        (reject(row="1"), "'row' is string, not int64"),
        (pa.Table.from_pylist([reject().to_pylist()[0] | {"row": None}], REJECTS), "'row' has 1 nulls"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_name(data: pa.Table, named: str) -> None:
    with pytest.raises(InputError, match=named):
        conform(data, REJECTS, table="rejects")


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | st.text(max_size=5),
            "raw": st.none() | st.binary(max_size=5),
            "number": st.none() | st.integers(-(2**31), 2**31 - 1),
            "real": st.none() | st.floats(allow_nan=False, width=32),
            "flag": st.none() | st.booleans(),
            "day": st.none() | st.dates(),
            "many": st.none() | st.lists(st.floats(allow_nan=False, width=32), max_size=3),
            "two": st.none() | st.lists(st.integers(-128, 127), min_size=2, max_size=2),
        }
    ),
    max_size=6,
)
ALL_TYPES = pa.schema(
    [
        ("text", pa.string()),
        ("raw", pa.binary()),
        ("number", pa.int32()),
        ("real", pa.float32()),
        ("flag", pa.bool_()),
        ("day", pa.date32()),
        ("many", pa.list_(pa.float32())),
        ("two", pa.list_(pa.int8(), 2)),
    ]
)


@given(ROWS, st.integers(0, 6))
def test_the_hash_does_not_depend_on_the_layout_in_memory(rows: list[dict[str, object]], cut: int) -> None:
    table = pa.Table.from_pylist(rows, ALL_TYPES)
    pieces = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    padded = pa.concat_tables([table.slice(0, 1), table]).combine_chunks().slice(min(1, len(rows)))
    assert rows_hash(pieces) == rows_hash(table) == rows_hash(padded)


@given(ROWS, ROWS)
def test_equal_hashes_mean_equal_rows(one: list[dict[str, object]], other: list[dict[str, object]]) -> None:
    left, right = (pa.Table.from_pylist(rows, ALL_TYPES) for rows in (one, other))
    # Minus zero equals zero but has other bytes; repr tells them apart.
    assert (rows_hash(left) == rows_hash(right)) == (repr(left.to_pylist()) == repr(right.to_pylist()))


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (pa.string(), ["a", "bc"], ["ab", "c"]),
        (pa.binary(), [b"a", b"bc"], [b"ab", b"c"]),
        (pa.string(), [None, ""], ["", None]),
        (pa.list_(pa.float32()), [[1], [2, 3]], [[1, 2], [3]]),
        (pa.int32(), [None, 0], [0, None]),
    ],
    ids=str,
)
def test_the_hash_sees_where_one_value_ends_and_the_next_begins(
    kind: pa.DataType, one: list[object], other: list[object]
) -> None:
    left, right = (pa.table({"x": pa.array(values, kind)}) for values in (one, other))
    assert rows_hash(left) != rows_hash(right)


def test_a_single_flipped_bit_of_a_vector_changes_the_hash() -> None:
    vector = np.arange(8, dtype=np.float32)
    row = {"query_id": "q", "encoder": "e", "norm": 1.0, "loss": 1.0, "n_tokens": 1}
    hashes = set()
    for flipped in (None, 0, 255):
        data = vector.copy()
        if flipped is not None:
            data.view(np.uint8)[flipped // 8] ^= 1 << (flipped % 8)
        hashes.add(rows_hash(pa.Table.from_pylist([row | {"vector": data.tolist()}], QUERIES)))
    assert len(hashes) == 3
