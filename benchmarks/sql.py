"""SQL over a lake of a million documents and a thousand hits, against DuckDB over the same rows in Parquet.

    python benchmarks/sql.py                      # a million documents: some minutes, 2 GB of disk
    python benchmarks/sql.py --documents 100000
    python benchmarks/sql.py --keep /tmp/asked    # leaves the lake there, and uses one that is there

Documents are generated, one passage each; hits are those of ten searches by words, which need no model. Both sides run
the same statements with the same views, take turns, and have the files in the page cache; medians. The session is open,
as in a shell; what opening it takes is measured apart. Prints one JSON object as its last line.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

import proponent
from proponent.query.session import Session

_QUESTIONS: Final = 10
_HITS_EACH: Final = 100
_ROUNDS: Final = 9
_RELATIONS: Final = (
    "documents",
    "passages",
    "mentions",
    "hits",
    "traces",
    "queries",
    "recomputations",
    "stored_encodings",
    "stored_near_duplicates",
)
_STATEMENTS: Final[dict[str, tuple[str, int | None, str]]] = {
    "join": ("Hits with their passages' text", 60, "SELECT rank, score, text FROM influence"),
    "plain_join": (
        "The same without `influence`",
        None,
        "SELECT rank, score, text FROM hits JOIN passages USING (passage_id)",
    ),
    "influence": (
        "influence, filtered, by source and month",
        150,
        "SELECT source, date_trunc('month', published) AS month, count(*) AS hits, sum(score) AS influence "
        "FROM influence WHERE side = 'proponent' AND published >= DATE '2000-01-01' GROUP BY ALL ORDER BY ALL",
    ),
    "count": (
        "Count of documents under a selective filter",
        20,
        "SELECT count(*) FROM documents WHERE source = 'archive-7' AND published = DATE '2011-03-05'",
    ),
}
"""What it is, the most milliseconds that it is to take, and the statement."""


def corpus_lines(n: int) -> Iterator[str]:
    """Yield documents as JSON, each of one passage: some 40 words, of 100 sources, over five decades."""
    chance = random.Random(0)  # noqa: S311  (the same corpus in every run)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 10))) for _ in range(20_000)]
    sentences = [" ".join(chance.choices(words, k=chance.randint(5, 15))).capitalize() + "." for _ in range(20_000)]
    sources = [f"{kind}-{number}" for kind in ("news", "web", "books", "forum", "archive") for number in range(20)]
    for number in range(n):
        row = {
            "id": f"doc-{number}",
            "text": " ".join(chance.choices(sentences, k=4)),
            "source": chance.choice(sources),
            "date": f"{chance.randint(1975, 2024)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}",
            "title": f"Number {number}",
            "url": f"https://example.org/{number}",
            "entities": [f"place-{min(int(chance.paretovariate(0.8)), 5000)}"],
        }
        yield json.dumps(row) + "\n"


def make_lake(folder: Path, n: int) -> None:
    """Make a lake of n documents, indexed, and search it by words."""
    corpus = folder.parent / "corpus.jsonl"
    with corpus.open("w", encoding="utf-8") as file:
        file.writelines(corpus_lines(n))
    with proponent.init(folder) as lake:
        lake.ingest(corpus, corpus="generated", entities="entities", id="id")
        lake.index_columns()
        lake.index_text()
        texts = lake.sql("SELECT text FROM passages ORDER BY passage_id LIMIT ?", [_QUESTIONS]).to_arrow()["text"]
        words = [text.split()[:8] for text in texts.to_pylist()]
        lake.trace_all([(" ".join(some[:4]), " " + " ".join(some[4:])) for some in words], method="bm25", k=_HITS_EACH)


def in_parquet(lake: proponent.Lake, folder: Path) -> duckdb.DuckDBPyConnection:
    """Write the lake's relations as Parquet; return a connection that has them, and the lake's views over them."""
    connection = duckdb.connect()
    for name in _RELATIONS:
        rows: pa.Table = lake.sql(f"FROM {name}").to_arrow()
        pq.write_table(rows, folder / f"{name}.parquet", compression="zstd", row_group_size=122_880)
        connection.execute(f"CREATE VIEW {name} AS FROM read_parquet('{folder / name}.parquet')")
    connection.execute(files("proponent.query").joinpath("sql", "views.sql").read_text("utf-8"))
    return connection


def in_turns(tasks: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median milliseconds of tasks that take turns, after each was done once to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(_ROUNDS + 1):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            if number:
                taken[name].append(1000 * (time.perf_counter() - started))
    return {name: median(values) for name, values in taken.items()}


def opening(lake: proponent.Lake) -> float:
    """Return the milliseconds that a session takes to open."""

    def opened() -> None:
        Session(lake.store, lake.snapshot).close()

    return in_turns({"open": opened})["open"]


def measure(folder: Path, lake_folder: Path) -> dict[str, Any]:
    """Measure all statements; return what the last line says."""
    found: dict[str, Any] = {}
    with proponent.open(lake_folder) as lake:
        [(n,)] = lake.sql("SELECT count(*) FROM documents")
        [(n_hits,)] = lake.sql("SELECT count(*) FROM hits")
        print(f"{n:,} documents, {n_hits:,} hits, {os.cpu_count()} cores\n")
        parquet = in_parquet(lake, folder)
        for name, (about, most, statement) in _STATEMENTS.items():
            ours, theirs = lake.sql(statement).to_arrow(), parquet.sql(statement).to_arrow_table()
            assert sorted(map(str, ours.to_pylist())) == sorted(map(str, theirs.to_pylist())), name
            taken = in_turns(
                {
                    "lake": lambda: lake.sql(statement).to_arrow(),  # noqa: B023
                    "parquet": lambda: parquet.sql(statement).to_arrow_table(),  # noqa: B023
                }
            )
            ratio = taken["lake"] / taken["parquet"]
            limit = f"(at most {most})" if most else ""
            print(
                f"  {about:45} {taken['lake']:7.1f} ms {limit:13} {ratio:6.2f} of {taken['parquet']:.1f} over Parquet"
            )
            found[f"{name}_ms"], found[f"{name}_vs_parquet"] = round(taken["lake"], 1), round(ratio, 3)
        found["open_ms"] = round(opening(lake), 1)
        print(f"  {'opening a session':45} {found['open_ms']:7.1f} ms")
    return {"documents": n, "hits": n_hits} | found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        lake = options.keep or Path(parent) / "lake"
        if not lake.exists():
            make_lake(lake, options.documents)
        print(json.dumps(measure(Path(parent), lake)))


if __name__ == "__main__":
    main()
