"""One corpus in whatever format makes the same lake: documents, passages and mentions row for row, ids included."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import proponent

Rows = list[dict[str, Any]]
TABLES = ("documents", "passages", "mentions")
RICH = (
    "corpus.jsonl",
    "corpus.jsonl.gz",
    "corpus.json.zst",
    "member.json",
    "corpus.parquet",
    "file.arrow",
    "stream.arrow",
)
FLAT = ("corpus.csv", "corpus.csv.gz", "corpus.tsv")


def table_bytes(rows: Rows, *, form: str) -> bytes:
    table = pa.Table.from_pylist(rows)
    sink = io.BytesIO()
    if form == "parquet":
        pq.write_table(table, sink, row_group_size=3)
        return sink.getvalue()
    with (pa.ipc.new_file if form == "file" else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return sink.getvalue()


def delimited(rows: Rows, delimiter: str) -> bytes:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(row | {"entities": ";".join(row["entities"])} for row in rows)
    return sink.getvalue().encode("utf-8-sig")


WRITERS: dict[str, Callable[[Rows], bytes]] = {
    "corpus.jsonl": lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode(),
    "corpus.jsonl.gz": lambda rows: gzip.compress(WRITERS["corpus.jsonl"](rows)),
    "corpus.json.zst": lambda rows: pa.compress(json.dumps(rows, indent=1).encode(), codec="zstd", asbytes=True),
    "member.json": lambda rows: json.dumps({"version": 1, "rows": rows}, ensure_ascii=False).encode(),
    "corpus.parquet": lambda rows: table_bytes(rows, form="parquet"),
    "file.arrow": lambda rows: table_bytes(rows, form="file"),
    "stream.arrow": lambda rows: table_bytes(rows, form="stream"),
    "corpus.csv": lambda rows: delimited(rows, ","),
    "corpus.csv.gz": lambda rows: gzip.compress(delimited(rows, ",")),
    "corpus.tsv": lambda rows: delimited(rows, "\t"),
}


@pytest.fixture
def lake_of(tmp_path: Path, read_table: Callable[..., Rows]) -> Callable[..., list[Rows]]:
    def made(name: str, rows: Rows, **settings: Any) -> list[Rows]:
        (tmp_path / name).write_bytes(WRITERS[name](rows))
        with proponent.init(tmp_path / f"lake of {name}") as lake:
            lake.ingest(tmp_path / name, corpus="c", max_chars=40, **settings)
            return [read_table(lake, table, without=["run_id"]) for table in TABLES]

    return made


def test_formats_with_types_give_the_same_lake(lake_of: Callable[..., list[Rows]], countries: Rows) -> None:
    expected = lake_of(RICH[0], countries)
    assert all(expected)
    for name in RICH[1:]:
        assert lake_of(name, countries) == expected, name


def test_texts_alone_give_the_same_lake_in_csv_too(lake_of: Callable[..., list[Rows]], countries: Rows) -> None:
    flat = [row | {"text": row["text"] + '\n"So, it is."'} for row in countries]
    for row in flat:
        del row["numbers"]
    expected = lake_of(RICH[0], flat)
    for name in FLAT:
        assert lake_of(name, flat, split_entities=";") == expected, name
