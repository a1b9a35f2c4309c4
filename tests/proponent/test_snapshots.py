"""A trace can be asked of an earlier snapshot, and a report made again, whatever has come or gone since."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import proponent
from proponent.lake import Lake
from proponent.schema.errors import NotFoundError
from proponent.schema.settings import EncoderSettings

SMALL = EncoderSettings(blocks=1, side=8, moments="none", sample=40)
ASK: dict[str, Any] = {"method": "logra"}
ASKED = ("The capital of", " France")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def lake(tmp_path: Path, checkpoint_dir: Path, sentences: list[str]) -> Iterator[Lake]:
    """Forty documents at snapshot 3, of which one is updated, and twenty are added, later."""
    rows = [{"id": f"d{n}", "text": text, "source": f"s{n % 2}"} for n, text in enumerate(sentences)]
    with proponent.init(tmp_path / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(write(tmp_path / "rows.jsonl", rows[:40]), corpus="c")
        lake.encode(settings=SMALL)
        yield lake


def grow(lake: Lake, tmp_path: Path, sentences: list[str]) -> None:
    rows = [{"id": f"d{n}", "text": text, "source": "s9"} for n, text in enumerate(sentences)]
    rows[0]["text"] = "Nothing of this was there."
    lake.ingest(write(tmp_path / "rows.jsonl", rows), corpus="c")
    lake.encode(settings=SMALL)


def scores(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    return {(row["side"], row["passage_id"]): row["score"] for row in rows}


def test_a_trace_at_a_snapshot_is_what_it_was_then_filters_and_texts_included(
    lake: Lake, tmp_path: Path, sentences: list[str]
) -> None:
    then = lake.snapshot.snapshot_id
    before = lake.trace(*ASKED, k=50, filter="source = 's1'", **ASK).to_dicts()
    texts = {row["text"] for row in before}
    grow(lake, tmp_path, sentences)
    newest = lake.trace(*ASKED, k=50, **ASK).to_dicts()
    assert lake.trace(*ASKED, k=50, filter="source = 's1'", **ASK).to_dicts() == []
    again = lake.trace(*ASKED, k=49, filter="source = 's1'", at=then, **ASK).to_dicts()
    assert {row["snapshot"] for row in again} == {then}
    assert {row["text"] for row in again} == texts
    assert {row["source"] for row in again} == {"s1"}
    assert scores(again) == pytest.approx(scores(before), abs=1e-5)
    assert len(newest) > len(before)
    with pytest.raises(NotFoundError, match="no snapshot 99"):
        lake.trace(*ASKED, at=99, **ASK)


def test_stored_hits_are_scored_again_within_rounding(lake: Lake, tmp_path: Path, sentences: list[str]) -> None:
    [first] = lake.trace_all([ASKED], k=5, **ASK)
    [trace] = lake.sql("SELECT snapshot FROM traces")
    stored = scores(lake.hits([first]).to_dicts())
    grow(lake, tmp_path, sentences)
    lake.delete("doc_key = 'd59'")
    [second] = lake.trace_all([ASKED], k=6, at=trace.snapshot, **ASK)
    again = scores(lake.hits([second], at=trace.snapshot).to_dicts())
    assert first != second
    assert {key: again[key] for key in stored} == pytest.approx(stored, abs=1e-5)


def test_a_report_is_the_same_bytes_after_the_lake_has_grown(lake: Lake, tmp_path: Path, sentences: list[str]) -> None:
    ids = lake.trace_all([ASKED, ("The currency of", " Peru")], k=5, **ASK)
    before = [lake.report(ids, tmp_path / name).read_bytes() for name in ("a.html", "a.md")]
    assert "| Snapshot searched | `3` |" in before[1].decode()
    grow(lake, tmp_path, sentences)
    lake.trace(*ASKED, k=7, **ASK)
    lake.requantise(codes="int4")
    lake.compact()
    assert [lake.report(ids, tmp_path / name).read_bytes() for name in ("b.html", "b.md")] == before


@pytest.mark.parametrize("forget", [False, True])
def test_hits_that_were_withdrawn_are_named_in_a_report(lake: Lake, tmp_path: Path, forget: bool) -> None:
    [trace_id] = lake.trace_all([ASKED], k=5, **ASK)
    keys = {(row["side"], row["rank"]): row["doc_key"] for row in lake.hits([trace_id]).to_dicts()}
    assert "withdrawn" not in lake.report(trace_id, tmp_path / "a.md").read_text("utf-8")
    gone = ", ".join(f"'{keys[place]}'" for place in (("proponent", 2), ("proponent", 5), ("opponent", 1)))
    lake.delete(f"doc_key IN ({gone})")
    if forget:  # without the snapshots that had them, only gaps tell
        lake.compact(forget=True)
    told = (
        "2 hits were withdrawn since, with the document: proponent 2; opponent 1."
        if forget
        else ("3 hits were withdrawn since, with the document: proponent 2, 5; opponent 1.")
    )
    assert told in lake.report(trace_id, tmp_path / "b.md").read_text("utf-8")


def test_what_was_withdrawn_is_not_searched_at_an_earlier_snapshot(lake: Lake) -> None:
    then = lake.snapshot.snapshot_id
    first = lake.trace(*ASKED, k=3, **ASK).to_dicts()
    lake.delete(f"doc_key = '{first[0]['doc_key']}'")
    again = lake.trace(*ASKED, k=3, at=then, **ASK).to_dicts()
    assert [row["rank"] for row in again if row["side"] == "proponent"] == [1, 2, 3]
    assert first[0]["doc_key"] not in {row["doc_key"] for row in again}
