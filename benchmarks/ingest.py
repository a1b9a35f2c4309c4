"""Ingesting a million documents: documents and megabytes a second, memory, and what each step costs.

    python benchmarks/ingest.py                     # a million documents, some minutes
    python benchmarks/ingest.py --documents 100000

The reference is pyarrow merely reading the same file, in the same run and like the ingest in a process of its own:
record batch by record batch, and into a table. It is told to use one thread and still reads ahead in another, so it is
measured on one core as well. One worker is one process; threads of it write batches while the next ones are made; it,
too, is measured on one core as well. Passages are cut by characters, so no tokenizer takes part. Where other programs
share the processor, compare CPU seconds, those of all threads. Prints one JSON object as its last line.
"""

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

_BLOCK = 16 << 20
_STEP_DOCUMENTS = 20_000
_STEP_BATCH = 370
_FORMAT_DOCUMENTS = 100_000
_READ_ROUNDS = 3


def corpus_lines(n: int) -> Iterator[str]:
    """Yield documents as JSON: some 250 words in the median, log-normal, in sentences of 5 to 25 words."""
    chance = random.Random(0)  # noqa: S311  (the same corpus in every run)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 10))) for _ in range(20_000)]
    sentences = [" ".join(chance.choices(words, k=chance.randint(5, 25))).capitalize() + "." for _ in range(20_000)]
    for number in range(n):
        n_sentences = max(1, min(1000, round(chance.lognormvariate(2.7, 1.0))))
        row = {
            "id": f"doc-{number}",
            "text": " ".join(chance.choices(sentences, k=n_sentences)),
            "source": chance.choice(("news", "web", "books")),
            "date": f"20{chance.randint(0, 25):02}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}",
            "url": f"https://example.org/{number}",
            "meta": {"crawl": number % 7},
        }
        yield json.dumps(row) + "\n"


def write_formats(source: Path, folder: Path, n: int) -> dict[str, Path]:
    """Write the first documents of a file in several formats."""
    with source.open("rb") as file:
        data = b"".join(islice(file, n))
    plain = folder / "some.jsonl"
    plain.write_bytes(data)
    packed = folder / "some.jsonl.gz"
    packed.write_bytes(gzip.compress(data, 6))
    zstd = folder / "some.jsonl.zst"
    with pa.CompressedOutputStream(str(zstd), "zstd") as sink:
        sink.write(data)
    table = folder / "some.parquet"
    pq.write_table(pj.read_json(plain), table, compression="zstd")
    return {"jsonl": plain, "jsonl.gz": packed, "jsonl.zst": zstd, "parquet": table}


def read_by_pyarrow(path: str, how: str) -> None:
    """Read a file on one thread, as a stream of record batches or into a table."""
    pa.set_cpu_count(1)
    options = pj.ReadOptions(use_threads=False, block_size=_BLOCK)
    if path.endswith(".parquet") and how == "table":
        n_rows = pq.read_table(path, use_threads=False).num_rows
    elif path.endswith(".parquet"):
        with pq.ParquetFile(path) as file:
            n_rows = sum(batch.num_rows for batch in file.iter_batches(use_threads=False))
    elif how == "table":
        with pa.input_stream(path, compression="detect") as file:
            n_rows = pj.read_json(file, read_options=options).num_rows
    else:
        with pa.input_stream(path, compression="detect") as file, pj.open_json(file, read_options=options) as batches:
            n_rows = sum(batch.num_rows for batch in batches)
    assert n_rows


def ingest(path: str, lake: str, workers: str) -> None:
    """Ingest a file into a new lake."""
    import proponent

    with proponent.init(lake) as opened:
        counts = opened.ingest(path, corpus="c", workers=int(workers))
    assert counts.added == counts.read


class Taken(NamedTuple):
    """What a task took."""

    seconds: float
    cpu: float
    """Seconds of processor time, of all threads and workers; a worker's start included, the task's own not."""
    mib: float
    """Peak memory of its largest process."""


def measured(task: str, *arguments: object, cores: str = "all") -> Taken:
    """Run a task in a process of its own; return what it took."""
    command = [sys.executable, __file__, "--cores", cores, "--task", task, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Taken(*map(float, done.stdout.split()[-3:]))


def run_task(task: str, arguments: list[str]) -> None:
    """Run a task in this process and print what it took."""
    from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

    import proponent.ingest.corpus
    import proponent.ingest.read_work  # noqa: F401

    started, cpu_started = time.perf_counter(), time.process_time()
    {"read": read_by_pyarrow, "ingest": ingest}[task](*arguments)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    workers = getrusage(RUSAGE_CHILDREN)
    print(
        seconds,
        cpu + workers.ru_utime + workers.ru_stime,
        max(getrusage(who).ru_maxrss for who in (RUSAGE_SELF, RUSAGE_CHILDREN)) / 1024,
    )


def reading(path: Path, how: str, *, cores: str = "all") -> Taken:
    """Return the medians of some readings, each in a fresh process."""
    every = [measured("read", path, how, cores=cores) for _ in range(_READ_ROUNDS)]
    return Taken(*map(median, zip(*every, strict=True)))


def steps(path: Path, folder: Path) -> dict[str, float]:
    """Return the share of a one-worker ingest's time that each step takes, measured one after the other."""
    import proponent
    from proponent.ingest.cutter import character_cutter
    from proponent.ingest.documents import documents_of
    from proponent.ingest.output import Output
    from proponent.ingest.readers import read_file
    from proponent.schema.ids import passage_and_text_ids
    from proponent.schema.settings import IngestSettings

    settings, cutter = IngestSettings(corpus="c"), character_cutter(1000)
    seconds: Counter[str] = Counter()

    def timed(step: str, action: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        found = action()
        seconds[step] += time.perf_counter() - started
        return found

    rows = timed("read and parse", lambda: list(islice(read_file(path), _STEP_DOCUMENTS)))
    with proponent.init(folder / "steps") as lake, Output(lake.store) as output:
        for start in range(0, len(rows), _STEP_BATCH):
            fields = [row.fields for row in rows[start : start + _STEP_BATCH]]
            documents = timed("map fields", lambda: documents_of(fields, settings, cutter.rule).documents)  # noqa: B023
            cut = timed("cut", lambda: cutter.cut(documents.texts))  # noqa: B023
            doc_ids, of, ordinals = documents.columns["doc_id"], cut.document.tolist(), cut.ordinal.tolist()
            ids, hashes = timed("ids", lambda: passage_and_text_ids(doc_ids, of, ordinals, cut.text))  # noqa: B023
            made = {
                "passage_id": ids,
                "doc_id": [doc_ids[document] for document in of],
                "ordinal": cut.ordinal,
                "char_start": cut.char_start,
                "char_end": cut.char_end,
                "n_tokens": pa.nulls(len(ids), pa.int32()),
                "text": cut.text,
                "text_hash": hashes,
            }
            told = {"corpus": ["c"], "run_id": ["r"], "n_passages": [1]}
            told = documents.columns | {name: one * len(documents) for name, one in told.items()}
            timed("write", lambda: output.add_columns("documents", told))  # noqa: B023
            timed("write", lambda: output.add_columns("passages", made))  # noqa: B023
        timed("write", output.finish)
    whole = sum(seconds.values())
    return {step: round(value / whole, 2) for step, value in seconds.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--cores", choices=("all", "one"), default="all", help="of a task: the cores it may use")
    parser.add_argument("--task", nargs="+", help="do one task in this process")
    options = parser.parse_args()
    if options.task:
        if options.cores == "one":
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        run_task(options.task[0], options.task[1:])
        return
    with tempfile.TemporaryDirectory() as parent:
        print(json.dumps(measure(Path(parent), options.documents)))


def measure(folder: Path, n: int) -> dict[str, Any]:
    """Measure everything; return what the last line says."""
    corpus = folder / "corpus.jsonl"
    with corpus.open("w", encoding="utf-8") as file:
        file.writelines(corpus_lines(n))
    mb = corpus.stat().st_size / 1e6
    print(f"{n:,} documents, {mb:,.0f} MB of JSON Lines, {os.cpu_count()} cores\n")
    found: dict[str, Any] = {"documents": n, "mb": round(mb)}
    read = {
        "pyarrow, batch by batch": reading(corpus, "stream"),
        "pyarrow, into a table": reading(corpus, "table"),
        "pyarrow, batch by batch, one core": reading(corpus, "stream", cores="one"),
        "pyarrow, into a table, one core": reading(corpus, "table", cores="one"),
    }
    for name, taken in read.items():
        print(f"  {name:34} {taken.seconds:7.1f} s  {taken.cpu:7.1f} CPU s  {mb / taken.seconds:7.1f} MB/s")
    streamed, table, streamed_one, table_one = read.values()
    for workers, cores in ((1, "all"), (1, "one"), (2, "all")):
        taken = measured("ingest", corpus, folder / f"lake-{workers}-{cores}", workers, cores=cores)
        name = f"ingest, {workers} worker{'s' * (workers > 1)}{', one core' * (cores == 'one')}"
        rates = f"{mb / taken.seconds:7.1f} MB/s  {n / taken.seconds:7,.0f} documents/s  {taken.mib:5.0f} MiB"
        print(f"  {name:34} {taken.seconds:7.1f} s  {taken.cpu:7.1f} CPU s  {rates}")
        over = {
            "batches": streamed.seconds / taken.seconds,
            "table": table.seconds / taken.seconds,
            "batches on one core": streamed_one.seconds / taken.seconds,
            "table on one core": table_one.seconds / taken.seconds,
            "batches by CPU seconds": streamed.cpu / taken.cpu,
        }
        print(f"  {'':34} over " + ", ".join(f"{what} {ratio:.3f}" for what, ratio in over.items()))
        found[name] = {
            "mb_s": round(mb / taken.seconds, 1),
            "documents_s": round(n / taken.seconds),
            "peak_mib": round(taken.mib),
            "over": {what: round(ratio, 3) for what, ratio in over.items()},
        }
    found["formats"] = {}
    print("\n  one worker over pyarrow batch by batch, and into a table, for a part of the corpus:")
    for name, path in write_formats(corpus, folder, min(n, _FORMAT_DOCUMENTS)).items():
        by_batch, whole = reading(path, "stream").seconds, reading(path, "table").seconds
        seconds = measured("ingest", path, folder / f"lake-{name}", 1).seconds
        found["formats"][name] = {"vs_stream": round(by_batch / seconds, 3), "vs_table": round(whole / seconds, 3)}
        ratios = f"{by_batch / seconds:.3f}, {whole / seconds:.3f}"
        print(f"    {name:12} {by_batch:6.2f} s and {whole:6.2f} s against {seconds:6.2f} s: {ratios}")
    found["steps"] = steps(corpus, folder)
    print("\n  share of each step: " + ", ".join(f"{step} {share:.0%}" for step, share in found["steps"].items()))
    return found


if __name__ == "__main__":
    main()
