"""Indexed columns: the same rows as without, wherever they came from, and built anew after a compaction."""

from typing import Any

import lance
import pyarrow as pa
import pytest
from sqlalchemy import select, update

from proponent.schema import catalog as models
from proponent.store import column_indexes
from proponent.store.column_indexes import INDEXED, build_column_indexes, had_column_indexes
from proponent.store.compaction import compact
from proponent.store.lake import LakeStore
from proponent.store.snapshots import latest_snapshot


def plan(lake: LakeStore, table: str, where: str) -> str:
    dataset = lake.table(table, at=latest_snapshot(lake.catalog))
    return str(dataset.scanner(filter=where).explain_plan())


def found(lake: LakeStore, table: str, where: str) -> list[str]:
    rows = lake.table(table, at=latest_snapshot(lake.catalog)).to_table(columns=["doc_id"], filter=where)
    return sorted(rows["doc_id"].to_pylist())


def add(lake: LakeStore, publish: Any, passage_rows: Any, mention_rows: Any, names: list[str]) -> None:
    publish(lake, [("passages", passage_rows(names)), ("mentions", mention_rows(names))])


@pytest.fixture
def rows(passage_rows: Any, mention_rows: Any, publish: Any) -> Any:
    return lambda lake, names: add(lake, publish, passage_rows, mention_rows, names)


def test_a_row_is_found_through_the_index_and_beside_it(lake: LakeStore, rows: Any, publish: Any) -> None:
    rows(lake, [f"a{n}" for n in range(50)])
    assert not had_column_indexes(lake)
    assert build_column_indexes(lake) == {"passages": 50, "mentions": 50}
    assert had_column_indexes(lake)
    for table, where in (("passages", "passage_id = 'pa7'"), ("mentions", "entity = 'a7'")):
        assert f"@by_{INDEXED[table]}" in plan(lake, table, where)
    before = latest_snapshot(lake.catalog)
    assert build_column_indexes(lake) == {}
    assert latest_snapshot(lake.catalog) == before
    rows(lake, ["b1", "a7"])
    publish(lake, deletes=[(table, "doc_id IN ('da8', 'a8')") for table in ("passages", "mentions")])
    for _ in range(2):
        assert found(lake, "passages", "passage_id IN ('pa7', 'pa8', 'pb1')") == ["da7", "da7", "db1"]
        assert found(lake, "mentions", "entity = 'b1' OR entity = 'a8'") == ["b1"]
        assert len(found(lake, "mentions", "NOT (entity = 'a7')")) == 49
        build_column_indexes(lake)


def test_many_segments_become_one(lake: LakeStore, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_indexes, "_MOST_SEGMENTS", 2)
    numbers = []
    for part in range(4):
        rows(lake, [f"{part}-{n}" for n in range(5)])
        build_column_indexes(lake)
        [index] = lake.table("passages", at=latest_snapshot(lake.catalog)).describe_indices()
        numbers.append(len(index.segments))
        assert found(lake, "passages", "passage_id = 'p0-3'") == ["d0-3"]
    assert numbers == [1, 2, 1, 2]


def test_a_compaction_keeps_the_indexes(lake: LakeStore, rows: Any) -> None:
    for part in range(12):
        rows(lake, [f"{part}-{n}" for n in range(3)])
    build_column_indexes(lake)
    assert "passages" in compact(lake).tables
    assert "@by_passage_id" in plan(lake, "passages", "passage_id = 'p4-1'")
    assert found(lake, "passages", "passage_id = 'p4-1'") == ["d4-1"]


def test_nobody_waits_for_the_commit_lock_while_columns_are_indexed(
    lake: LakeStore, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(lake, ["a", "b"])
    create = lance.LanceDataset.create_index_uncommitted

    def while_others_write(self: lance.LanceDataset, *args: Any, **options: Any) -> Any:
        rows(lake, [f"c{self.count_rows()}"])
        return create(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(lance.LanceDataset, "create_index_uncommitted", while_others_write)
        build_column_indexes(lake)
    assert found(lake, "passages", "passage_id = 'pc2'") == ["dc2", "dc2"]
    assert found(lake, "passages", "passage_id = 'pa'") == ["da"]


def test_a_build_that_ends_at_any_step_is_finished_by_building_again(
    make_lake: Any, tmp_path: Any, rows: Any, crashes: Any, crash: type[BaseException]
) -> None:
    for step in range(0, 1000, 9):
        lake = make_lake(tmp_path / f"lake{step}")
        rows(lake, ["a", "b"])
        try:
            with crashes.after_steps(step):
                build_column_indexes(lake)
            break
        except crash:
            with lake.catalog.write() as session:
                session.execute(update(models.Lock).values(process_start="gone"))
            assert found(lake, "passages", "passage_id = 'pb'") == ["db"]
            build_column_indexes(lake)
            for table, where in (("passages", "passage_id = 'pb'"), ("mentions", "entity = 'b'")):
                assert "@by_" in plan(lake, table, where), step
                assert len(found(lake, table, where)) == 1
            with lake.catalog.read() as session:
                assert session.scalars(select(models.Run).where(models.Run.status == "done")).all()
    assert step > 8


def test_documents_are_found_by_their_source(lake: LakeStore, document_rows: Any, publish: Any) -> None:
    def add(names: list[str], sources: list[str | None]) -> None:
        rows = document_rows(names)
        place = rows.schema.get_field_index("source")
        publish(lake, [("documents", rows.set_column(place, rows.schema.field(place), pa.array(sources, pa.string())))])

    add([f"a{n}" for n in range(40)], [None if n % 4 == 0 else f"source {n % 4}" for n in range(40)])
    assert build_column_indexes(lake) == {"documents": 40}
    assert "@by_source" in plan(lake, "documents", "source = 'source 1'")
    add(["b1", "b2", "b3"], ["source 1", None, "new's"])
    publish(lake, deletes=[("documents", "doc_id IN ('a1', 'a4')")])
    for _ in range(2):
        assert found(lake, "documents", "source = 'source 1'") == sorted([*(f"a{n}" for n in range(5, 40, 4)), "b1"])
        assert len(found(lake, "documents", "source IS NULL")) == 10
        assert found(lake, "documents", "source = 'new''s' OR source = 'none of them'") == ["b3"]
        assert len(found(lake, "documents", "source <> 'source 1'")) == 21
        build_column_indexes(lake)
