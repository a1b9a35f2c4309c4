"""An ingest accounts for every row, publishes all or nothing, and done twice changes nothing."""

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

import proponent
from proponent.ingest import pieces, read_work
from proponent.ingest.corpus import Counts
from proponent.ingest.progress import Progress
from proponent.schema import catalog as models
from proponent.schema.errors import CorpusError, DamagedLakeError, SettingsError
from proponent.schema.ids import document_id

Rows = list[dict[str, Any]]
Write = Callable[..., Path]
Read = Callable[..., Rows]
TABLES = ("documents", "passages", "mentions")


def last_run(lake: proponent.Lake) -> models.Run:
    with lake.store.catalog.read() as session:
        return session.scalars(select(models.Run).order_by(models.Run.started_at.desc())).first()  # type: ignore[return-value]


def corpora(lake: proponent.Lake) -> list[str]:
    with lake.store.catalog.read() as session:
        return list(session.scalars(select(models.Corpus.name)))


def test_every_field_arrives_in_its_column(
    lake: proponent.Lake, write_jsonl: Write, read_table: Read, countries: Rows
) -> None:
    lake.ingest(write_jsonl(countries), corpus="factbook")
    documents = {row["doc_key"]: row for row in read_table(lake, "documents")}
    for row in countries:
        found = documents[row["id"]]
        assert found["doc_id"] == document_id("factbook", row["id"])
        assert found["corpus"] == "factbook"
        assert all(found[name] == row[name] for name in ("source", "title", "url", "author", "language", "license"))
        assert (found["published"].isoformat()[:7], found["published_precision"]) == (row["date"], "month")
        assert found["published_text"] == row["date"]
        assert found["trained_on"] is None
        assert json.loads(found["metadata"]) == {"code": row["code"], "numbers": row["numbers"]}


def test_passages_are_runs_of_their_documents_text(
    lake: proponent.Lake, write_jsonl: Write, read_table: Read, countries: Rows
) -> None:
    long = [row | {"text": " ".join([row["text"]] * 5)} for row in countries]
    counts = lake.ingest(write_jsonl(long), corpus="c", max_chars=60)
    texts = {document_id("c", row["id"]): row["text"] for row in long}
    documents = {row["doc_id"]: row for row in read_table(lake, "documents")}
    passages = read_table(lake, "passages")
    assert counts.passages == len(passages) == sum(row["n_passages"] for row in documents.values())
    for doc_id, text in texts.items():
        of_document = sorted((row for row in passages if row["doc_id"] == doc_id), key=lambda row: row["ordinal"])
        assert [row["ordinal"] for row in of_document] == list(range(documents[doc_id]["n_passages"]))
        assert all(text[row["char_start"] : row["char_end"]] == row["text"] for row in of_document)
        assert all(len(row["text"]) <= 60 and row["n_tokens"] is None for row in of_document)
    ids = {row["passage_id"] for row in passages}
    assert len(ids) == len(passages)
    assert {(row["passage_id"], row["entity"]) for row in read_table(lake, "mentions")} == {
        (row["passage_id"], entity)
        for row in passages
        for source in long
        if document_id("c", source["id"]) == row["doc_id"]
        for entity in source["entities"]
    }


def test_json_lines_and_parquet_of_the_same_rows_give_the_same_tables(
    tmp_path: Path, write_jsonl: Write, read_table: Read, countries: Rows
) -> None:
    pq.write_table(pa.Table.from_pylist(countries), tmp_path / "corpus.parquet")
    found = []
    for file in (write_jsonl(countries), tmp_path / "corpus.parquet"):
        with proponent.init(tmp_path / f"lake{len(found)}") as lake:
            lake.ingest(file, corpus="c", max_chars=40)
            found.append([read_table(lake, table, without=["run_id"]) for table in TABLES])
    assert found[0] == found[1]
    assert all(found[0])


def test_the_same_rows_again_from_the_other_format_change_nothing(
    lake: proponent.Lake, tmp_path: Path, write_jsonl: Write, countries: Rows
) -> None:
    pq.write_table(pa.Table.from_pylist(countries), tmp_path / "corpus.parquet")
    lake.ingest(write_jsonl(countries), corpus="c")
    before = lake.snapshot
    counts = lake.ingest(tmp_path / "corpus.parquet", corpus="c")
    assert (counts.unchanged, counts.added, counts.updated) == (len(countries), 0, 0)
    assert lake.snapshot == before


def test_the_order_and_split_of_files_mean_nothing(
    tmp_path: Path, write_jsonl: Write, read_table: Read, countries: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_work, "_BATCH_BYTES", 100)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 100)
    whole = [write_jsonl(countries)]
    parts = [write_jsonl(countries[2:], "b.jsonl"), write_jsonl(countries[:2], "a.jsonl")]
    found = []
    for files in (whole, parts):
        with proponent.init(tmp_path / f"lake{len(found)}") as lake:
            lake.ingest(files, corpus="c")
            found.append([read_table(lake, table, without=["run_id"]) for table in TABLES])
    assert found[0] == found[1]


def test_a_changed_document_replaces_the_old_one_with_its_passages_and_mentions(
    lake: proponent.Lake, write_jsonl: Write, read_table: Read, countries: Rows
) -> None:
    lake.ingest(write_jsonl(countries), corpus="c")
    before = {table: read_table(lake, table) for table in TABLES}
    old = lake.snapshot
    changed = countries[0] | {"text": "Lyon is the capital of France.", "entities": ["Lyon"]}
    counts = lake.ingest(write_jsonl([changed, *countries[1:]]), corpus="c")
    assert (counts.read, counts.added, counts.updated, counts.unchanged) == (4, 0, 1, 3)
    doc_id = document_id("c", changed["id"])
    for table in TABLES:
        kept = [row for row in before[table] if row["doc_id"] != doc_id]
        now = read_table(lake, table)
        assert [row for row in now if row["doc_id"] != doc_id] == kept
        assert [row for row in now if row["doc_id"] == doc_id] != [
            row for row in before[table] if row["doc_id"] == doc_id
        ]
    assert [row["text"] for row in read_table(lake, "passages") if row["doc_id"] == doc_id] == [changed["text"]]
    assert [row["entity"] for row in read_table(lake, "mentions") if row["doc_id"] == doc_id] == ["Lyon"]
    assert lake.store.table("documents", at=old).count_rows() == 4, "older snapshots stay readable"


def test_a_smaller_budget_cuts_the_documents_anew(
    lake: proponent.Lake, write_jsonl: Write, read_table: Read, countries: Rows
) -> None:
    file = write_jsonl(countries)
    lake.ingest(file, corpus="c")
    counts = lake.ingest(file, corpus="c", max_chars=40)
    assert counts.updated == 4
    assert len(read_table(lake, "passages")) == counts.passages > 4


def test_another_corpus_does_not_touch_the_first(
    lake: proponent.Lake, write_jsonl: Write, read_table: Read, countries: Rows
) -> None:
    file = write_jsonl(countries)
    lake.ingest(file, corpus="one")
    lake.ingest(file, corpus="two")
    assert sorted(row["corpus"] for row in read_table(lake, "documents")) == ["one"] * 4 + ["two"] * 4
    assert sorted(corpora(lake)) == ["one", "two"]


def test_repeats_in_one_run_are_counted_and_contradictions_rejected(
    lake: proponent.Lake, write_jsonl: Write, read_table: Read, countries: Rows
) -> None:
    file = write_jsonl([*countries, countries[0], countries[1] | {"text": "Cusco is the capital of Peru."}])
    counts = lake.ingest(file, corpus="c", max_reject_share=0.5)
    assert (counts.read, counts.added, counts.duplicates, counts.rejected) == (6, 4, 1, 1)
    (reject,) = read_table(lake, "rejects")
    assert (reject["row"], reject["file"], reject["corpus"]) == (6, str(file), "c")
    assert "'PE-1' came before in this run with other content" in reject["reason"]
    assert json.loads(reject["raw"])["text"].startswith("Cusco")
    assert any(row["text"].startswith("Lima") for row in read_table(lake, "passages"))


def test_every_row_that_was_read_is_accounted_for_in_the_record_of_the_run(
    lake: proponent.Lake, write_jsonl: Write, countries: Rows
) -> None:
    file = write_jsonl([*countries, countries[0], '{"id": 5}', "{", countries[2] | {"id": "KE-2", "date": "soon"}])
    counts = lake.ingest(file, corpus="c", max_reject_share=0.3)
    assert (counts.read, counts.added, counts.duplicates, counts.rejected, counts.undated) == (8, 5, 1, 2, 1)
    assert sum(counts.reject_reasons.values()) == counts.rejected
    run = last_run(lake)
    assert (run.kind, run.status, run.counts["read"], run.counts["added"]) == ("ingest", "done", 8, 5)
    assert run.settings["corpus"] == "c"


def test_counts_that_do_not_add_up_are_never_published() -> None:
    Counts(read=3, added=1, unchanged=1, rejected=1).prove()
    with pytest.raises(DamagedLakeError, match="3 rows were read but 2 accounted for"):
        Counts(read=3, added=2).prove()


def test_a_run_that_loses_a_row_publishes_nothing(
    lake: proponent.Lake, write_jsonl: Write, countries: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lake.snapshot
    right = read_work.KnownDocuments.fates

    def forgetful(self: Any, doc_ids: Any, content_hashes: Any) -> list[str]:
        judged = zip(right(self, doc_ids, content_hashes), doc_ids, strict=True)
        return ["passages" if doc_id == document_id("c", "KE-1") else fate for fate, doc_id in judged]

    monkeypatch.setattr(read_work.KnownDocuments, "fates", forgetful)
    with pytest.raises(DamagedLakeError, match="4 rows were read but 3 accounted for"):
        lake.ingest(write_jsonl(countries), corpus="c")
    assert lake.snapshot == before


def test_too_many_rejects_publish_nothing_but_the_rejects(
    lake: proponent.Lake, write_jsonl: Write, read_table: Read, countries: Rows
) -> None:
    file = write_jsonl([countries[0], '{"id": 5}', *countries[1:]])
    with pytest.raises(CorpusError, match=r"1 of 5 rows were rejected.*corpus\.jsonl:2: no text in field 'text'"):
        lake.ingest(file, corpus="c")
    assert all(read_table(lake, table) == [] for table in TABLES)
    assert [row["row"] for row in read_table(lake, "rejects")] == [2]
    assert corpora(lake) == []
    run = last_run(lake)
    assert (run.status, run.counts["rejected"]) == ("failed", 1)
    assert lake.ingest(file, corpus="c", max_reject_share=0.2).added == 4, "the same command with more patience works"


def test_a_file_that_fails_in_the_middle_leaves_the_lake_as_it_was(
    lake: proponent.Lake, tmp_path: Path, write_jsonl: Write, countries: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_work, "_BATCH_BYTES", 10)
    before = lake.snapshot
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorpusError, match=r"cut\.parquet"):
        lake.ingest([write_jsonl(countries), tmp_path / "cut.parquet"], corpus="c")
    assert lake.snapshot == before
    assert lake.ingest(write_jsonl(countries), corpus="c").added == 4


def test_a_crash_while_reading_loses_and_doubles_nothing(
    lake: proponent.Lake, write_jsonl: Write, read_table: Read, countries: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_work, "_BATCH_BYTES", 10)
    file = write_jsonl(countries)

    read = read_work.read_file

    def crash_at_three(*asked: Any, **options: Any) -> Iterator[Any]:
        for row in read(*asked, **options):
            if row.row == 3:
                raise KeyboardInterrupt
            yield row

    with monkeypatch.context() as patch:
        patch.setattr(read_work, "read_file", crash_at_three)
        with pytest.raises(KeyboardInterrupt):
            lake.ingest(file, corpus="c")
    assert read_table(lake, "documents") == []
    assert lake.ingest(file, corpus="c").added == 4
    assert [len(read_table(lake, table)) for table in TABLES] == [4, 4, 8]
    assert lake.ingest(file, corpus="c").unchanged == 4


def test_a_field_that_was_named_but_is_in_no_row_is_an_error(
    lake: proponent.Lake, write_jsonl: Write, countries: Rows
) -> None:
    before = lake.snapshot
    with pytest.raises(CorpusError, match=r"no row has the field of --title headline; the rows have \["):
        lake.ingest(write_jsonl(countries), corpus="c", title="headline")
    assert lake.snapshot == before


def test_default_fields_may_be_absent_and_named_ones_may_be_rare(
    lake: proponent.Lake, write_jsonl: Write, read_table: Read
) -> None:
    rows = [{"key": n, "text": f"Text {n}."} | ({"headline": "h"} if n == 3 else {}) for n in range(5)]
    assert lake.ingest(write_jsonl(rows), corpus="c", id="key", title="headline").added == 5
    assert sorted(str(row["title"]) for row in read_table(lake, "documents")) == ["None"] * 4 + ["h"]


def test_an_empty_file_is_an_error_and_adds_nothing(lake: proponent.Lake, write_jsonl: Write) -> None:
    before = lake.snapshot
    with pytest.raises(CorpusError, match="no rows"):
        lake.ingest(write_jsonl([]), corpus="c")
    assert lake.snapshot == before


def test_a_file_whose_checksum_is_wrong_publishes_nothing(
    lake: proponent.Lake, tmp_path: Path, write_jsonl: Write, countries: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_work, "_BATCH_BYTES", 10)
    before = lake.snapshot
    data = bytearray(gzip.compress(write_jsonl(countries).read_bytes()))
    data[-6] ^= 0x55
    (tmp_path / "rows.jsonl.gz").write_bytes(data)
    with pytest.raises(CorpusError, match=r"rows\.jsonl\.gz cannot be read.*: CRC check failed"):
        lake.ingest(tmp_path / "rows.jsonl.gz", corpus="c")
    assert lake.snapshot == before


def test_folders_patterns_and_stores_give_the_lake_that_their_files_give(
    lake: proponent.Lake, tmp_path: Path, write_jsonl: Write, countries: Rows
) -> None:
    (tmp_path / "parts").mkdir()
    write_jsonl(countries[:2], "parts/a.jsonl")
    write_jsonl(countries[2:], "parts/b.jsonl")
    memory = fsspec.filesystem("memory")
    memory.put(f"{tmp_path}/parts/", "/parts/", recursive=True)
    assert lake.ingest(tmp_path / "parts", corpus="c").added == 4
    for given in (f"{tmp_path}/*/*.jsonl", "memory://parts", "memory://parts/*.jsonl"):
        assert lake.ingest(given, corpus="c").unchanged == 4
    assert last_run(lake).settings["files"] == ["memory://parts/*.jsonl"]
    memory.rm("/parts", recursive=True)


def test_a_row_larger_than_the_limit_is_a_reject(
    lake: proponent.Lake, write_jsonl: Write, read_table: Read, countries: Rows
) -> None:
    file = write_jsonl([*countries, countries[0] | {"id": "x", "text": "word " * 1000}])
    assert lake.ingest(file, corpus="c", max_reject_share=0.5, max_row_bytes=2000).rejected == 1
    [reject] = read_table(lake, "rejects")
    assert (reject["row"], reject["reason"]) == (5, "the row is larger than 2000 bytes (--max-row-bytes)")


def test_dates_that_nobody_can_read_are_counted(lake: proponent.Lake, write_jsonl: Write) -> None:
    rows = [{"id": n, "text": "x", "date": when} for n, when in enumerate(["03/04/2015", "soon", None, "2015"])]
    counts = lake.ingest(write_jsonl(rows), corpus="c")
    assert (counts.undated, counts.unread_dates, counts.first_unread_date) == (3, 2, "03/04/2015")


@pytest.mark.parametrize("spec", ["numbers.share", "numbers.by_year.0", "{code}/{numbers.districts}", "=same"])
def test_a_named_field_may_be_nested_a_template_or_a_constant(
    lake: proponent.Lake, write_jsonl: Write, countries: Rows, spec: str
) -> None:
    assert lake.ingest(write_jsonl(countries), corpus="c", title=spec).added == 4


@pytest.mark.parametrize("spec", ["numbers.sum", "numbers.by_year.7", "{code}/{nothing}"])
def test_a_nested_field_that_is_in_no_row_is_an_error(
    lake: proponent.Lake, write_jsonl: Write, countries: Rows, spec: str
) -> None:
    with pytest.raises(CorpusError, match="no row has the field of --title"):
        lake.ingest(write_jsonl(countries), corpus="c", title=spec)


def test_text_files_are_documents_named_below_what_was_given(
    lake: proponent.Lake, tmp_path: Path, read_table: Read
) -> None:
    for name in ("a.txt", "b/a.txt"):
        (tmp_path / "letters" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "letters" / name).write_text(f"Dear {name}.\n---\nYours.\n")
    lake.ingest(tmp_path / "letters", corpus="c")
    assert {row["doc_key"] for row in read_table(lake, "documents")} == {"a.txt", "b/a.txt"}
    lake.ingest(f"{tmp_path}/letters/**/*.txt", corpus="d", separator="---", source="=letters")
    keys = {row["doc_key"] for row in read_table(lake, "documents") if row["source"] == "letters"}
    assert keys == {"a.txt#1", "a.txt#2", "b/a.txt#1", "b/a.txt#2"}


def test_no_files_are_an_error(lake: proponent.Lake) -> None:
    with pytest.raises(CorpusError, match="no files"):
        lake.ingest([], corpus="c")


@pytest.mark.parametrize("name", ["o'brien; --", 'a "quoted" name', "日本", "%_*", "x" * 100])
def test_a_corpus_may_have_any_name(
    lake: proponent.Lake, write_jsonl: Write, read_table: Read, countries: Rows, name: str
) -> None:
    lake.ingest(write_jsonl(countries), corpus=name)
    assert lake.ingest(write_jsonl(countries), corpus=name).unchanged == 4
    assert lake.ingest(write_jsonl([countries[0] | {"text": "New."}]), corpus=name).updated == 1
    assert {row["corpus"] for row in read_table(lake, "documents")} == {name}


def test_a_blank_name_is_refused(lake: proponent.Lake, write_jsonl: Write, countries: Rows) -> None:
    with pytest.raises(SettingsError, match="name"):
        lake.ingest(write_jsonl(countries), corpus=" ")


def test_ids_and_texts_may_hold_anything_that_is_text(
    lake: proponent.Lake, write_jsonl: Write, read_table: Read
) -> None:
    awkward = ["'; DROP TABLE documents; --", 'a"b', "a\\b", "🙂", "\u202e", "NaN", "a\nb"]
    rows = [{"id": text, "text": f"x{text}\x00x", "entities": [text]} for text in awkward]
    assert lake.ingest(write_jsonl(rows), corpus="c").added == len(awkward)
    assert {row["doc_key"] for row in read_table(lake, "documents")} == set(awkward)
    assert {row["text"] for row in read_table(lake, "passages")} == {f"x{text}\x00x" for text in awkward}
    assert lake.ingest(write_jsonl(rows), corpus="c").unchanged == len(awkward)


def test_an_id_with_a_nul_is_rejected_since_not_every_catalog_can_hold_it(
    lake: proponent.Lake, write_jsonl: Write, read_table: Read
) -> None:
    rows = [{"id": "a\x00b", "text": "x"}, {"id": "c", "text": "y"}]
    assert lake.ingest(write_jsonl(rows), corpus="c", max_reject_share=0.5).rejected == 1
    assert read_table(lake, "rejects")[0]["reason"] == "the id in field 'id' has a NUL character"


def test_a_file_whose_name_is_not_utf8_is_read_and_named(
    lake: proponent.Lake, tmp_path: Path, read_table: Read
) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl"))
    try:
        path.write_text('{"id": 1, "text": "x"}\n{\n')
    except OSError:
        pytest.skip("this file system has only UTF-8 names")
    assert lake.ingest(path, corpus="c", max_reject_share=0.5).added == 1
    assert read_table(lake, "rejects")[0]["file"].endswith("caf\\xe9.jsonl")


def test_passages_are_measured_by_the_only_models_tokenizer(
    lake: proponent.Lake, write_jsonl: Write, read_table: Read, checkpoint_dir: Path, sentences: list[str]
) -> None:
    from proponent.encode.checkpoint import load_tokenizer

    lake.add_model(checkpoint_dir, name="tiny")
    lake.ingest(write_jsonl([{"id": 1, "text": " ".join(sentences)}]), corpus="c")
    tokenizer = load_tokenizer(checkpoint_dir)
    for row in read_table(lake, "passages"):
        assert row["n_tokens"] == len(tokenizer(row["text"])["input_ids"]) <= 64


def test_a_named_tokenizer_and_a_budget_decide_the_cut(
    lake: proponent.Lake, write_jsonl: Write, read_table: Read, checkpoint_dir: Path, sentences: list[str]
) -> None:
    file = write_jsonl([{"id": 1, "text": " ".join(sentences)}])
    lake.ingest(file, corpus="c", tokenizer=checkpoint_dir, max_tokens=30)
    assert all(row["n_tokens"] <= 30 for row in read_table(lake, "passages"))


def test_progress_comes_to_all_of_the_files_and_all_of_their_rows(
    lake: proponent.Lake, write_jsonl: Write, countries: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 100)
    told: list[Progress] = []
    file = write_jsonl([*countries, "no JSON"])
    lake.ingest(file, corpus="c", max_reject_share=0.5, progress=told.append)
    assert [now.done for now in told] == sorted(now.done for now in told)
    assert told[-1].done == told[-1].total == file.stat().st_size
    assert told[-1].counts == {"documents": 4, "passages": 4, "tokens": 0, "rejected": 1}
