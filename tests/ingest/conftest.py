"""A lake in a temporary folder, and corpus files to put into it."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import proponent

Rows = list[dict[str, Any]]


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[proponent.Lake]:
    with proponent.init(tmp_path / "lake") as made:
        yield made


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: Sequence[dict[str, Any] | str], name: str = "corpus.jsonl") -> Path:
        path = tmp_path / name
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def read_table() -> Callable[..., Rows]:
    """Return the rows of a lake's table at its newest snapshot, without the columns named."""

    def read(lake: proponent.Lake, name: str, *, without: Sequence[str] = (), sort: str | None = None) -> Rows:
        data: pa.Table = lake.store.table(name, at=lake.snapshot).to_table()
        rows = data.drop_columns([column for column in without if column in data.column_names]).to_pylist()
        return sorted(rows, key=lambda row: row[sort] if sort else json.dumps(row, default=str, sort_keys=True))

    return read


@pytest.fixture
def countries() -> Rows:
    """Documents with every field that has a column, and two that have none."""
    return [
        {
            "id": f"{code}-1",
            "text": f"{capital} is the capital of {name}. It has {n} districts.",
            "source": "Geography",
            "date": f"20{10 + n}-0{n}",
            "title": name,
            "url": f"https://example.org/{code}",
            "author": "nobody",
            "language": "en",
            "license": "CC0-1.0",
            "entities": [name, capital],
            "code": code,
            "numbers": {"districts": n, "share": n / 7, "by_year": [n, None]},
        }
        for n, (code, name, capital) in enumerate(
            [("FR", "France", "Paris"), ("PE", "Peru", "Lima"), ("KE", "Kenya", "Nairobi"), ("JP", "日本", "東京")],
            start=1,
        )
    ]
