"""An updated document takes its passages, mentions and encodings along, in the snapshot that brings the new ones."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import proponent
from proponent.ingest.removals import remove_documents
from proponent.lake import Lake
from proponent.schema.ids import document_id, text_hash
from proponent.schema.settings import EncoderSettings
from proponent.store.commit import Changes
from proponent.store.stale import encoded_texts, stale_texts

SMALL = EncoderSettings(blocks=1, side=8, moments="none", sample=40)
OLD, SHARED, NEW = "The capital of Peru is old.", "The currency of Chad is the franc.", "A new river of France."
ASKED = ("The capital of", " France")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    def write(texts: Sequence[str]) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
        return path

    return write


@pytest.fixture
def texts(sentences: list[str]) -> list[str]:
    """A text that one document has, one that two have, and thirty others."""
    return [OLD, SHARED, SHARED, *sentences[:30]]


@pytest.fixture
def lake(tmp_path: Path, texts: list[str], write: Callable[..., Path], checkpoint_dir: Path) -> Iterator[Lake]:
    with proponent.init(tmp_path / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(write(texts), corpus="c")
        lake.encode(settings=SMALL)
        lake.index()
        lake.fit_curvature([ASKED, ("The currency of", " Peru")], name="task")  # which has norms
        yield lake


def stored(lake: Lake) -> dict[str, set[str]]:
    at = lake.snapshot
    return {
        table.partition("_")[0]: set(
            lake.store.table(table, at=at).to_table(columns=["text_hash"])["text_hash"].to_pylist()
        )
        for table in at.versions
        if table.partition("_")[0] in ("encodings", "index", "norms")
    }


def test_what_is_stale_depends_on_who_stays_and_who_comes(lake: Lake) -> None:
    ids = {n: document_id("c", f"d{n}") for n in range(3)}

    def stale(gone: list[int], coming: list[str] = []) -> set[str]:  # noqa: B006
        gone_ids = pa.array([ids[n] for n in gone], pa.string())
        hashes = pa.array([text_hash(text) for text in coming], pa.string())
        found = stale_texts(lake.store, lake.snapshot, gone=gone_ids, coming=hashes)
        assert len({tuple(sorted(part.to_pylist())) for part in found.values()}) <= 1, "the same in every table"
        assert not found or {table.partition("_")[0] for table in found} == {"encodings", "index", "norms"}
        return {key for part in found.values() for key in part.to_pylist()}

    assert stale([]) == set()
    assert stale([0]) == {text_hash(OLD)}
    assert stale([0], [OLD]) == set(), "it comes again"
    assert stale([1]) == set(), "another document has it"
    assert stale([1, 2]) == {text_hash(SHARED)}
    assert stale([0, 1, 2], [SHARED]) == {text_hash(OLD)}


def test_removing_nobody_deletes_nothing(lake: Lake) -> None:
    changes = Changes()
    assert remove_documents(lake.store, lake.snapshot, changes, pa.array([], pa.string())) == {}
    assert changes.take() == []


def test_an_update_takes_stale_encodings_along_in_its_own_snapshot(
    lake: Lake, texts: list[str], write: Callable[..., Path]
) -> None:
    before, number = stored(lake), lake.snapshot.snapshot_id
    assert set(before) == {"encodings", "index", "norms"}
    assert all(text_hash(OLD) in keys for keys in before.values())
    assert lake.ingest(write([NEW, NEW, *texts[2:]]), corpus="c").updated == 2
    assert lake.snapshot.snapshot_id == number + 1
    for table, keys in stored(lake).items():
        assert keys == before[table] - {text_hash(OLD)}, table
    assert lake.status()["encoders"][0]["encodings"] == len(before["encodings"]) - 1
    assert lake.encode(settings=SMALL).encoded == 1
    assert lake.encode(settings=SMALL).encoded == 0
    shown = lake.trace(*ASKED, method="logra", k=100).to_dicts()
    assert OLD not in {row["text"] for row in shown}
    assert NEW in {row["text"] for row in shown}


def test_a_text_that_moves_to_another_document_keeps_its_encoding(
    lake: Lake, texts: list[str], write: Callable[..., Path]
) -> None:
    before = stored(lake)
    moved = [texts[3], *texts[1:3], OLD, *texts[4:]]
    assert lake.ingest(write(moved), corpus="c").updated == 2
    assert stored(lake) == before
    assert lake.encode(settings=SMALL).encoded == 0


def test_what_an_encoding_run_adds_too_late_is_seen_by_nobody_and_goes_with_the_next_update(
    lake: Lake, texts: list[str], write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from proponent.ingest import encoding

    late = [NEW, *texts[1:]]
    lake.ingest(write(late), corpus="c")
    original = encoding.list_missing_texts

    def replaced_meanwhile(*arguments: Any, **options: Any) -> int:
        """The document changes again once the run has decided what to encode."""
        n_texts = original(*arguments, **options)
        with proponent.open(lake.store.root) as other:
            other.ingest(write([OLD, *texts[1:]]), corpus="c")
        return n_texts

    with monkeypatch.context() as patch:
        patch.setattr(encoding, "list_missing_texts", replaced_meanwhile)
        lake.encode(settings=SMALL)
    assert text_hash(NEW) in stored(lake)["encodings"], "the run came too late"
    living = encoded_texts(lake.store, lake.snapshot, "tiny")
    assert text_hash(NEW) not in living.to_pylist()
    assert lake.status()["encoders"][0]["encodings"] == len(living)
    [row] = lake.sql("SELECT count(*) AS n FROM encodings WHERE passage_id NOT IN (SELECT passage_id FROM passages)")
    assert row.n == 0
    assert lake.index()["rows"] == len(living)
    assert NEW not in {row["text"] for row in lake.trace(*ASKED, method="logra", k=100).to_dicts()}
    lake.ingest(write([OLD, texts[3], *texts[2:]]), corpus="c")
    assert all(text_hash(NEW) not in keys for keys in stored(lake).values())
