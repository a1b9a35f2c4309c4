"""A withdrawn document is nowhere: not in a table, a hit or an earlier snapshot, and not after its files come again."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import proponent
from proponent.cli import cli
from proponent.lake import Lake
from proponent.schema.errors import FilterError, LakeBusyError
from proponent.schema.settings import EncoderSettings
from proponent.store.commit import Committer
from proponent.store.leases import lease

SMALL = EncoderSettings(blocks=1, side=8, moments="none", sample=40)
ASKED = ("The capital of", " France")
SECRET = "The capital of France lies on a secret river."
SHARED = "The currency of Peru is the franc."


@pytest.fixture
def rows(tmp_path: Path, sentences: list[str]) -> Path:
    """Sixty documents; one to be withdrawn with a text of its own, and one of two that share a text."""
    texts = [SECRET, SHARED, SHARED, *sentences[:57]]
    lines = [{"id": f"d{n}", "text": text, "entities": ["France", "Peru"]} for n, text in enumerate(texts)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


@pytest.fixture
def lake(tmp_path: Path, rows: Path, checkpoint_dir: Path) -> Iterator[Lake]:
    with proponent.init(tmp_path / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(rows, corpus="c")
        lake.encode(settings=SMALL)
        lake.index()
        yield lake


def number(lake: Lake, relation: str, where: str = "true", *, at: int | None = None) -> int:
    [row] = lake.sql(f"SELECT count(*) AS n FROM {relation} WHERE {where}", at=at)
    return int(row.n)


def test_a_withdrawn_document_is_in_no_relation_and_found_by_no_trace(lake: Lake) -> None:
    found = lake.trace(*ASKED, method="logra", k=100).to_dicts()
    trace_id = found[0]["trace_id"]
    before = len(found)
    counts = lake.delete("doc_key = 'd0'", reason="the author asked")
    assert counts == {"documents": 1, "passages": 1, "mentions": 2, "hits": 1, "traces": 1, "encodings": 1}
    for relation in ("documents", "passages", "mentions", "influence"):
        text = "text" if relation in ("passages", "influence") else "doc_id"
        assert number(lake, relation, f"{text} LIKE '%secret%' OR doc_id IN (SELECT doc_id FROM withdrawals)") == 0
    assert number(lake, "documents") == 59
    assert number(lake, "encodings") == 59
    assert number(lake, "hits", f"trace_id = '{trace_id}'") == before - 1
    for options in ({"k": 100}, {"k": 5, "approximate": True}):
        again = lake.trace(*ASKED, method="logra", **options).to_dicts()
        assert again
        assert all("secret" not in row["text"] for row in again)
    [kept] = lake.sql("FROM withdrawals").to_dicts()
    assert (kept["doc_key"], kept["corpus"], kept["reason"]) == ("d0", "c", "the author asked")


def test_earlier_snapshots_hide_it_too(lake: Lake) -> None:
    lake.trace(*ASKED, method="logra", k=100)
    earlier = lake.snapshot.snapshot_id
    full = {table: number(lake, table, at=earlier) for table in ("documents", "passages", "mentions", "hits")}
    lake.delete("doc_key = 'd0'")
    for table, n_hidden in (("documents", 1), ("passages", 1), ("mentions", 2), ("hits", 1)):
        assert number(lake, table, at=earlier) == full[table] - n_hidden
    assert number(lake, "influence", "text LIKE '%secret%'", at=earlier) == 0
    assert number(lake, "documents", at=1) == 0


def test_a_text_that_another_document_has_keeps_its_encoding(lake: Lake) -> None:
    counts = lake.delete("doc_key = 'd1'")
    assert (counts["documents"], counts["encodings"]) == (1, 0)
    assert number(lake, "encodings") == 59
    assert lake.delete("doc_key = 'd2'")["encodings"] == 1 - number(lake, "passages", f"text = '{SHARED}'")


def test_it_stays_out_when_its_files_are_ingested_again(lake: Lake, rows: Path) -> None:
    lake.delete("doc_key IN ('d0', 'd5')")
    counts = lake.ingest(rows, corpus="c")
    assert (counts.read, counts.unchanged, counts.withdrawn, counts.added) == (60, 58, 2, 0)
    assert number(lake, "documents") == 58
    other = lake.ingest(rows, corpus="other")
    assert (other.added, other.withdrawn) == (60, 0)


def test_a_dry_run_counts_and_changes_nothing(lake: Lake) -> None:
    before = lake.snapshot
    told = lake.delete("doc_key = 'd0'", dry_run=True)
    assert lake.snapshot == before
    assert number(lake, "withdrawals") == 0
    assert lake.delete("doc_key = 'd0'") == told


def test_withdrawing_nothing_changes_nothing(lake: Lake) -> None:
    before = lake.snapshot
    assert lake.delete("doc_key = 'nobody'")["documents"] == 0
    assert lake.snapshot == before


def test_thousands_of_documents_go_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proponent.store.rows.AT_ONCE", 1000)
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps({"id": n, "text": f"Text {n}."}) + "\n" for n in range(2500)), "utf-8")
    with proponent.init(tmp_path / "many") as lake:
        lake.ingest(path, corpus="c")
        earlier = lake.snapshot.snapshot_id
        assert lake.delete("text <> 'Text 7.'")["documents"] == 2499
        assert number(lake, "documents") == number(lake, "documents", at=earlier) == 1


@pytest.mark.parametrize("where", ["", "nothing = 1", "1; DROP TABLE documents", "doc_key = (SELECT 1)"])
def test_only_a_filter_is_taken(lake: Lake, where: str) -> None:
    with pytest.raises(FilterError):
        lake.delete(where)
    assert number(lake, "documents") == 60


@pytest.mark.parametrize("lock", ["ingest c", "encode tiny"])
def test_it_waits_for_who_writes_what_it_would_delete(lake: Lake, lock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from proponent.ingest import withdrawals

    monkeypatch.setattr(withdrawals, "WAIT_S", 0.2)
    with lease(lake.store.catalog, lock), pytest.raises(LakeBusyError, match=lock):
        lake.delete("doc_key = 'd0'")
    assert number(lake, "documents") == 60


class ProcessDied(BaseException):
    """Stands for a kill."""


def test_a_withdrawal_that_died_while_publishing_is_finished(
    lake: Lake, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_arguments: object) -> None:
        raise ProcessDied

    with monkeypatch.context() as patch:
        patch.setattr(Committer, "_carry_out", die)
        with pytest.raises(ProcessDied):
            lake.delete("doc_key = 'd0'")
    assert lake.ingest(rows, corpus="c").withdrawn == 1
    assert number(lake, "documents") == 59
    assert number(lake, "withdrawals") == 1


def test_the_commands_tell_what_went_and_what_happened(lake: Lake, tmp_path: Path) -> None:
    invoke: Callable[..., Any] = CliRunner().invoke
    command = ["delete", str(tmp_path / "lake"), "--where", "doc_key = 'd0'"]
    done = invoke(cli, [*command, "--dry-run"])
    assert "1 documents would be withdrawn: 1 passages, 2 mentions, 1 encodings, 0 hits" in done.stderr
    done = invoke(cli, [*command, "--reason", "asked", "--format", "json", "-q"])
    assert json.loads(done.stdout)[0]["documents"] == 1
    rows = json.loads(invoke(cli, ["history", str(tmp_path / "lake"), "--format", "json"]).stdout)
    assert [row["kind"] for row in rows] == ["delete", "norms", "index", "encode", "fit", "ingest", "model", "init"]
    assert rows[0]["subject"] == "asked"
    assert json.loads(rows[0]["counts"])["documents"] == 1
    assert [row["snapshot"] for row in rows if row["kind"] in ("delete", "ingest")] == [rows[0]["snapshot"], 2]


def test_a_report_of_an_earlier_trace_leaves_it_out(lake: Lake, tmp_path: Path) -> None:
    trace_id = lake.trace(*ASKED, method="logra", k=100).to_dicts()[0]["trace_id"]
    lake.delete("doc_key = 'd0'")
    text = lake.report(trace_id, tmp_path / "report.html").read_text("utf-8")
    assert "secret" not in text
