"""A mark says what the model was trained on: in one snapshot, and until the document's content changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from proponent.cli import cli
from proponent.ingest import marks
from proponent.lake import Lake
from proponent.schema.errors import CorpusError, FilterError, LakeBusyError, SettingsError
from proponent.schema.settings import EncoderSettings
from proponent.store.leases import lease

SMALL = EncoderSettings(blocks=1, side=8, moments="none", sample=40)
Write = Callable[..., Path]
ROWS = [{"id": f"d{n}", "text": f"Text {n}.", "title": f"T{n}", "entities": ["X"], "extra": n} for n in range(5)]


def said(lake: Lake, *, at: int | None = None) -> dict[str, bool | None]:
    return {row.doc_key: row.trained_on for row in lake.sql("SELECT doc_key, trained_on FROM documents", at=at)}


@pytest.fixture
def filled(lake: Lake, write_jsonl: Write) -> Lake:
    lake.ingest(write_jsonl(ROWS), corpus="c")
    return lake


def test_a_mark_changes_nothing_else_and_earlier_snapshots_keep_theirs(filled: Lake, read_table: Any) -> None:
    before = {table: read_table(filled, table, without=["trained_on"]) for table in ("documents", "passages")}
    earlier = filled.snapshot.snapshot_id
    assert filled.mark("doc_key IN ('d1', 'd2')", trained_on=False) == {"documents": 2, "changed": 2}
    assert filled.snapshot.snapshot_id == earlier + 1
    assert said(filled) == {"d0": None, "d1": False, "d2": False, "d3": None, "d4": None}
    assert set(said(filled, at=earlier).values()) == {None}
    assert {table: read_table(filled, table, without=["trained_on"]) for table in before} == before
    [run] = filled.sql("SELECT settings, counts FROM runs WHERE kind = 'mark'").to_dicts()
    assert json.loads(run["settings"]) == {"trained_on": "no", "where": "doc_key IN ('d1', 'd2')"}
    assert json.loads(run["counts"]) == {"documents": 2, "changed": 2}


def test_every_answer_can_be_given_and_taken_back(filled: Lake) -> None:
    for answer in (True, False, None):
        filled.mark("doc_key = 'd0'", trained_on=answer)
        assert said(filled)["d0"] is answer
    assert filled.mark("trained_on IS NULL", trained_on=True)["changed"] == 5


def test_marking_the_same_again_or_nothing_publishes_nothing(filled: Lake) -> None:
    filled.mark("true", trained_on=True)
    before = filled.snapshot
    assert filled.mark("true", trained_on=True) == {"documents": 5, "changed": 0}
    assert filled.mark("doc_key = 'nobody'", trained_on=False) == {"documents": 0, "changed": 0}
    assert filled.snapshot == before


def test_a_dry_run_counts_and_changes_nothing(filled: Lake) -> None:
    before = filled.snapshot
    told = filled.mark("doc_key <> 'd0'", trained_on=True, dry_run=True)
    assert filled.snapshot == before
    assert filled.mark("doc_key <> 'd0'", trained_on=True) == told == {"documents": 4, "changed": 4}


def test_many_documents_are_marked_at_once(lake: Lake, write_jsonl: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proponent.store.rows.AT_ONCE", 100)
    monkeypatch.setattr(marks, "_ROWS_AT_ONCE", 64)
    lake.ingest(write_jsonl([{"id": n, "text": f"Text {n}."} for n in range(500)]), corpus="c")
    assert lake.mark("text <> 'Text 7.'", trained_on=True)["changed"] == 499
    assert [key for key, value in said(lake).items() if value is None] == ["7"]
    assert len(said(lake)) == 500


def test_a_mark_stays_when_the_same_rows_come_again_and_goes_with_the_content(filled: Lake, write_jsonl: Write) -> None:
    filled.mark("true", trained_on=True)
    assert filled.ingest(write_jsonl(ROWS), corpus="c").unchanged == 5
    assert set(said(filled).values()) == {True}
    changed = [ROWS[0] | {"text": "Other."}, *ROWS[1:]]
    assert filled.ingest(write_jsonl(changed), corpus="c").updated == 1
    assert said(filled) == {"d0": None, "d1": True, "d2": True, "d3": True, "d4": True}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[(True, True), ("yes", True), (" TRUE ", True), (1, True), ("1", True), (False, False), ("no", False)],
        *[(0, False), (0.0, False), (None, None), ("", None), ("null", None)],
    ],
)
def test_a_field_says_it_at_ingest(lake: Lake, write_jsonl: Write, value: Any, expected: bool | None) -> None:
    lake.ingest(write_jsonl([ROWS[0] | {"seen": value}]), corpus="c", trained_on="seen")
    [row] = lake.sql("SELECT trained_on, metadata FROM documents")
    assert row.trained_on is expected
    assert json.loads(row.metadata) == {"extra": 0}


@pytest.mark.parametrize("value", ["maybe", 2, 0.5, ["yes"], {"a": 1}])
def test_what_is_no_answer_is_a_reject_with_the_field(lake: Lake, write_jsonl: Write, value: Any) -> None:
    lake.ingest(write_jsonl([{"id": 9, "text": "x", "trained_on": value}]), corpus="c", max_reject_share=1.0)
    [row] = lake.sql("SELECT reason FROM rejects")
    assert row.reason.startswith("field 'trained_on' is ")
    assert row.reason.endswith("trained_on must be true, false or nothing")


def test_a_constant_marks_a_whole_corpus_and_another_one_updates_it(
    filled: Lake, write_jsonl: Write, read_table: Any
) -> None:
    file, passages = write_jsonl(ROWS), read_table(filled, "passages")
    for constant, expected in (("=true", True), ("=no", False)):
        counts = filled.ingest(file, corpus="c", trained_on=constant)
        assert (counts.updated, counts.unchanged) == (5, 0)
        assert set(said(filled).values()) == {expected}
    assert filled.ingest(file, corpus="c", trained_on="=no").unchanged == 5
    assert read_table(filled, "passages") == passages


def test_an_update_of_the_mark_alone_keeps_the_encodings(
    lake: Lake, checkpoint_dir: Path, write_jsonl: Write, sentences: list[str]
) -> None:
    rows = [{"id": n, "text": text} for n, text in enumerate(sentences)]
    lake.add_model(checkpoint_dir, name="tiny")
    lake.ingest(write_jsonl(rows), corpus="c")
    lake.encode(settings=SMALL)
    before = lake.status()["rows"]["encodings_tiny"]
    lake.ingest(write_jsonl(rows), corpus="c", trained_on="=true")
    assert lake.status()["rows"]["encodings_tiny"] == before
    assert lake.encode(settings=SMALL).encoded == 0


def test_a_field_that_no_row_has_is_named_by_its_option(lake: Lake, write_jsonl: Write) -> None:
    with pytest.raises(CorpusError, match="no row has the field of --trained-on seen"):
        lake.ingest(write_jsonl(ROWS), corpus="c", trained_on="seen")
    with pytest.raises(SettingsError, match=r"--trained-on \{a"):
        lake.ingest(write_jsonl(ROWS), corpus="c", trained_on="{a")


def test_it_waits_for_an_ingest_of_the_documents(filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "WAIT_S", 0.2)
    with lease(filled.store.catalog, "ingest c"), pytest.raises(LakeBusyError, match="ingest c"):
        filled.mark("true", trained_on=True)
    with lease(filled.store.catalog, "ingest other"):
        filled.mark("true", trained_on=True)


def test_only_a_filter_is_taken(filled: Lake) -> None:
    with pytest.raises(FilterError):
        filled.mark("", trained_on=True)


@pytest.fixture
def traced(lake: Lake, checkpoint_dir: Path, write_jsonl: Write, sentences: list[str]) -> Lake:
    lake.add_model(checkpoint_dir, name="tiny")
    lake.ingest(write_jsonl([{"id": f"d{n}", "text": text} for n, text in enumerate(sentences)]), corpus="c")
    lake.encode(settings=SMALL)
    return lake


def test_hits_that_the_model_was_not_trained_on_are_told_apart(traced: Lake, tmp_path: Path) -> None:
    invoke = CliRunner().invoke
    trace = ["trace", str(traced.store.root), "--prompt", "The capital of", "--target", " France", "--method", "logra"]
    assert "trained" not in invoke(cli, trace).stdout
    done = invoke(cli, ["mark", str(traced.store.root), "--where", "true", "--trained-on", "no"])
    assert "60 of 60 documents marked: trained_on no" in done.stderr
    shown = invoke(cli, trace).stdout
    assert "trained on" in shown
    assert "the model was not trained on 20 of these: their score says what training on them would do" in shown
    for suffix in ("html", "md"):
        text = traced.report("last", tmp_path / f"report.{suffix}").read_text("utf-8")
        assert text.count("The model was not trained on this document") == 20
    traced.mark("true", trained_on=True)
    shown = invoke(cli, trace).stdout
    assert "yes" in shown
    assert "was not trained" not in shown
    rows = json.loads(invoke(cli, ["history", str(traced.store.root), "--format", "json"]).stdout)
    assert [(row["kind"], row["subject"]) for row in rows][:2] == [("mark", "true"), ("mark", "true")]
