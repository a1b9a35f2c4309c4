"""The hits of a trace are its rows of relation `influence`, whatever else the lake has."""

import pyarrow as pa
import pytest

from proponent.query.hits import hits_of
from proponent.query.session import Session
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot, get_snapshot


def test_hits_are_the_rows_of_influence(filled: LakeStore, at: Snapshot, session: Session) -> None:
    expected = session.sql("SELECT * FROM influence ORDER BY side DESC, rank").to_arrow()
    assert expected.num_rows == 2
    found = hits_of(filled, at, ["trace"]).to_arrow()
    assert found.equals(expected.cast(found.schema))
    assert {row["entities"] is not None and row["text"] is not None for row in found.to_pylist()} == {True}


@pytest.mark.parametrize("ids", [[], ["none"], ["'"], ["trace' OR 'a' = 'a"], ["trace\\"], ["трасе"], [""]])
def test_what_is_no_trace_has_no_hits(filled: LakeStore, at: Snapshot, ids: list[str]) -> None:
    found = hits_of(filled, at, ids)
    assert len(found) == 0
    assert "passage_id" in found.columns


def test_before_a_trace_was_stored_it_has_no_hits(filled: LakeStore) -> None:
    assert len(hits_of(filled, get_snapshot(filled.catalog, 2), ["trace"])) == 0


def test_many_hits_are_joined_with_all_passages(
    filled: LakeStore, at: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    few: pa.Table = hits_of(filled, at, ["trace"]).to_arrow()
    monkeypatch.setattr("proponent.query.session.AT_ONCE", 1)
    assert hits_of(filled, at, ["trace"]).to_arrow().equals(few)
