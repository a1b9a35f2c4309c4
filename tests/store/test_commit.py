"""A publication becomes visible all at once, and exactly once, wherever a process ends on the way."""

import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest
from sqlalchemy import func, select, update

from proponent.schema import catalog as models
from proponent.schema.errors import InputError, LeaseLostError, NotFoundError
from proponent.schema.tables import DOCUMENTS, rows_hash
from proponent.store.commit import Change, Changes, committing, write_batch
from proponent.store.lake import LakeStore
from proponent.store.leases import this_machine
from proponent.store.runs import new_run
from proponent.store.snapshots import get_snapshot, latest_snapshot

Rows = Callable[..., pa.Table]

BEFORE = {"documents": ["a", "b", "c", "d"], "mentions": ["a", "b"], "passages": []}
AFTER = {"documents": ["b", "d", "e", "f", "g"], "mentions": ["a"], "passages": []}

PUBLISH = """
import sys
from pathlib import Path
import pyarrow as pa
from proponent.schema.tables import DOCUMENTS
from proponent.store.commit import Changes, committing, write_batch
from proponent.store.lake import open_store
from proponent.store.runs import recorded_run

lake, who, often = open_store(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
blank = {field.name: None if field.nullable else "" for field in DOCUMENTS} | {"n_passages": 0}
for n in range(often):
    rows = [blank | {"doc_id": f"{who}-{n}-{place}"} for place in range(3)]
    with recorded_run(lake.catalog, "test", {}) as run:
        changes = Changes()
        changes.append(write_batch(lake, "documents", pa.Table.from_pylist(rows, schema=DOCUMENTS)))
        changes.delete("documents", f"doc_id = '{who}-{n - 1}-2'")
        with committing(lake) as committer:
            committer.publish(run.run_id, changes.take())
"""

KILLED = """
import os, signal, sys
from pathlib import Path
import lance
import pyarrow as pa
from proponent.schema.tables import DOCUMENTS
from proponent.store import commit
from proponent.store.lake import open_store
from proponent.store.runs import recorded_run

def dying(original, when):
    def call(*args, **kwargs):
        if when == "after":
            original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    return call

when, where = sys.argv[2].split()
owner = {"delete": lance.LanceDataset, "commit": lance.LanceDataset, "_carry_out": commit.Committer}.get(where)
if owner is None:
    owner, where = commit.models.Snapshot, "__init__"
lake = open_store(Path(sys.argv[1]))
blank = {field.name: None if field.nullable else "" for field in DOCUMENTS} | {"n_passages": 0}
with recorded_run(lake.catalog, "test", {}) as run:
    changes = commit.Changes()
    for ids in (["e", "f"], ["g"]):
        rows = pa.Table.from_pylist([blank | {"doc_id": name} for name in ids], schema=DOCUMENTS)
        changes.append(commit.write_batch(lake, "documents", rows))
    changes.delete("documents", "doc_id IN ('a', 'c')")
    changes.delete("mentions", "doc_id = 'b'")
    with commit.committing(lake) as committer:
        setattr(owner, where, dying(getattr(owner, where), when))
        committer.publish(run.run_id, changes.take())
"""


@pytest.fixture
def filled(lake: LakeStore, publish: Any, document_rows: Rows, mention_rows: Rows) -> LakeStore:
    publish(lake, [("documents", document_rows(BEFORE["documents"])), ("mentions", mention_rows(BEFORE["mentions"]))])
    return lake


@pytest.fixture
def change(publish: Any, document_rows: Rows) -> Callable[[LakeStore], Any]:
    """Publish what leads from BEFORE to AFTER: deletions and appends, and a row of the catalog."""

    def change(lake: LakeStore) -> Any:
        batches = [("documents", document_rows(["e", "f"])), ("documents", document_rows(["g"]))]
        deletes = [("documents", "doc_id IN ('a', 'c')"), ("mentions", "doc_id = 'b'")]
        return publish(lake, batches, deletes, rows=[models.Corpus(name="new")])

    return change


@pytest.fixture
def state(ids_in: Any) -> Callable[[LakeStore], dict[str, list[str]]]:
    """What a reader sees at the newest snapshot."""

    def state(lake: LakeStore) -> dict[str, list[str]]:
        at = latest_snapshot(lake.catalog)
        return {table: ids_in(lake, table, at) for table in BEFORE}

    return state


def recover(lake: LakeStore) -> None:
    with committing(lake):
        pass


def holder_died(lake: LakeStore) -> None:
    """Make locks that a simulated crash left behind look like those of another process, one that is gone."""
    with lake.catalog.write() as session:
        session.execute(update(models.Lock).values(process_start="gone"))


def count(lake: LakeStore, model: type[models.Base], *where: Any) -> int:
    with lake.catalog.read() as session:
        return session.scalar(select(func.count()).select_from(model).where(*where)) or 0


def test_rows_are_visible_only_through_the_new_snapshot(
    filled: LakeStore, document_rows: Rows, state: Any, change: Any, ids_in: Any
) -> None:
    before = latest_snapshot(filled.catalog)
    write_batch(filled, "documents", document_rows(["unpublished"]))
    assert state(filled) == BEFORE
    after = change(filled)
    assert after.snapshot_id == before.snapshot_id + 1
    assert after == latest_snapshot(filled.catalog) == get_snapshot(filled.catalog, after.snapshot_id)
    assert state(filled) == AFTER
    assert ids_in(filled, "documents", before) == BEFORE["documents"]


def test_every_old_snapshot_reads_as_it_was(lake: LakeStore, publish: Any, document_rows: Rows, ids_in: Any) -> None:
    draw, expected, present = random.Random(0), {}, set()
    for n in range(12):
        gone = draw.sample(sorted(present), k=min(len(present), draw.randint(0, 2)))
        new = [f"{n}-{place}" for place in range(draw.randint(0 if gone else 1, 3))]
        batches = [("documents", document_rows(new))] if new else []
        at = publish(lake, batches, [("documents", f"doc_id = '{name}'") for name in gone])
        present = present - set(gone) | set(new)
        expected[at.snapshot_id] = sorted(present)
    for snapshot_id, ids in expected.items():
        assert ids_in(lake, "documents", get_snapshot(lake.catalog, snapshot_id)) == ids


def test_deletions_see_the_table_as_it_was_before_the_publication(
    filled: LakeStore, publish: Any, document_rows: Rows, ids_in: Any
) -> None:
    at = publish(filled, [("documents", document_rows(["a", "a"]))], [("documents", "doc_id = 'a'")])
    assert ids_in(filled, "documents", at) == ["a", "a", "b", "c", "d"]


def test_a_batch_is_recorded_with_its_files_and_the_hash_of_its_rows(
    filled: LakeStore, publish: Any, document_rows: Rows
) -> None:
    rows = document_rows(["x", "y"])
    at = publish(filled, [("documents", rows)])
    with filled.catalog.read() as session:
        batch = session.scalars(select(models.Batch).where(models.Batch.n_rows == 2)).all()[-1]
    assert (batch.table_name, batch.content_hash) == ("documents", rows_hash(rows))
    folder = filled.tables_dir / "documents.lance" / "data"
    assert all((folder / name).is_file() for name in batch.files)
    stored = {file.path for part in filled.table("documents", at=at).get_fragments() for file in part.data_files()}
    assert set(batch.files) <= stored


def test_a_batch_without_rows_changes_nothing(filled: LakeStore, publish: Any, state: Any) -> None:
    batch = write_batch(filled, "documents", DOCUMENTS.empty_table())
    assert (batch.fragments, batch.n_rows) == ((), 0)
    publish(filled, [("documents", DOCUMENTS.empty_table())])
    assert state(filled) == BEFORE


def test_taking_the_changes_starts_anew(filled: LakeStore, document_rows: Rows) -> None:
    changes = Changes()
    changes.append(write_batch(filled, "documents", document_rows(["x"])))
    changes.delete("mentions", "true")
    assert [change.table for change in changes.take()] == ["documents", "mentions"]
    assert changes.take() == []


def test_rows_that_do_not_fit_the_schema_are_refused_at_the_write(lake: LakeStore, document_rows: Rows) -> None:
    rows = document_rows(["x"])
    wrong = {
        "missing": rows.drop_columns(["title"]),
        "unknown": rows.append_column("extra", pa.array([1])),
        "is int64": rows.set_column(0, "doc_id", pa.array([1])),
        "1 nulls": rows.set_column(0, "doc_id", pa.array([None], pa.string())),
    }
    for match, table in wrong.items():
        with pytest.raises(InputError, match=match):
            write_batch(lake, "documents", table)
    with pytest.raises(NotFoundError):
        write_batch(lake, "encodings_none", rows)
    folder = lake.tables_dir / "documents.lance" / "data"
    assert not folder.exists() or not list(folder.iterdir())


def test_columns_may_come_in_any_order(lake: LakeStore, publish: Any, document_rows: Rows, ids_in: Any) -> None:
    rows = document_rows(["x"])
    at = publish(lake, [("documents", rows.select(rows.column_names[::-1]))])
    assert ids_in(lake, "documents", at) == ["x"]


def test_catalog_rows_come_with_the_changes_and_those_already_there_are_kept(filled: LakeStore, publish: Any) -> None:
    publish(filled, rows=[models.Query(query_id="q", prompt="p", target="t", query_set="first")])
    publish(filled, rows=[models.Query(query_id="q", prompt="p", target="t", query_set="second")])
    with filled.catalog.read() as session:
        assert session.get_one(models.Query, "q").query_set == "first"


def test_catalog_rows_are_amended_with_the_changes_in_the_columns_that_are_given(
    filled: LakeStore, publish: Any
) -> None:
    publish(filled, rows=[models.Query(query_id="q", prompt="p", target="t", query_set="first")])
    publish(filled, amend=[models.Query(query_id="q", query_set="second")])
    with filled.catalog.read() as session:
        row = session.get_one(models.Query, "q")
    assert (row.prompt, row.target, row.query_set) == ("p", "t", "second")


def test_contents_with_a_schema_of_their_own_replace_a_tables_rows(
    filled: LakeStore, document_rows: Rows, publish: Any, ids_in: Any
) -> None:
    before, run = latest_snapshot(filled.catalog), new_run("test", {})
    with filled.catalog.write() as session:
        session.add(run)
    kept = DOCUMENTS.remove(DOCUMENTS.get_field_index("author"))
    batches = [
        write_batch(filled, "documents", document_rows(ids).drop_columns(["author"]), schema=kept)
        for ids in (["x", "y"], ["z"])
    ]
    assert ids_in(filled, "documents", latest_snapshot(filled.catalog)) == BEFORE["documents"]
    with committing(filled) as committer:
        at = committer.publish(run.run_id, [Change("documents", tuple(batches), schema=kept)])
    assert filled.table("documents", at=at).schema.names == kept.names
    assert ids_in(filled, "documents", at) == ["x", "y", "z"]
    assert filled.table("documents", at=before).schema.names == DOCUMENTS.names
    assert ids_in(filled, "documents", before) == BEFORE["documents"]


# Ending on the way


def test_a_publication_that_ends_at_any_step_is_finished_exactly_once(
    make_lake: Any,
    tmp_path: Path,
    publish: Any,
    document_rows: Rows,
    mention_rows: Rows,
    change: Any,
    state: Any,
    crashes: Any,
    crash: type[BaseException],
) -> None:
    for step in range(1000):
        lake = make_lake(tmp_path / f"lake{step}")
        first = [("documents", document_rows(BEFORE["documents"])), ("mentions", mention_rows(BEFORE["mentions"]))]
        before = publish(lake, first).snapshot_id
        try:
            with crashes.after_steps(step):
                change(lake)
            break
        except crash as ended:
            place = f"step {step}, {ended}"
        holder_died(lake)
        seen = state(lake)
        assert seen in (BEFORE, AFTER), place
        planned = count(lake, models.Publication) == 2
        assert count(lake, models.Corpus) == (seen == AFTER), place
        recover(lake)
        assert count(lake, models.Corpus) == planned, place
        assert state(lake) == (AFTER if planned else BEFORE), place
        assert latest_snapshot(lake.catalog).snapshot_id == before + planned, place
        assert count(lake, models.Publication, models.Publication.snapshot_id.is_(None)) == 0
        recover(lake)
        assert latest_snapshot(lake.catalog).snapshot_id == before + planned, place
        if not planned:
            change(lake)
            assert state(lake) == AFTER, place
    assert state(lake) == AFTER
    assert crashes.steps.count("after delete") == 2
    assert crashes.steps.count("after commit") == 1
    assert len(crashes.steps) == step > 15


def test_a_recovery_that_ends_at_any_step_is_finished_exactly_once(
    make_lake: Any,
    tmp_path: Path,
    publish: Any,
    document_rows: Rows,
    mention_rows: Rows,
    change: Any,
    state: Any,
    crashes: Any,
    crash: type[BaseException],
) -> None:
    first = [("documents", document_rows(BEFORE["documents"])), ("mentions", mention_rows(BEFORE["mentions"]))]
    for step in range(1000):
        lake = make_lake(tmp_path / f"lake{step}")
        before = publish(lake, first).snapshot_id
        with pytest.raises(crash), crashes.after_steps("after delete"):
            change(lake)
        try:
            with crashes.after_steps(step):
                recover(lake)
            break
        except crash:
            holder_died(lake)
            assert state(lake) in (BEFORE, AFTER)
            recover(lake)
            assert state(lake) == AFTER, f"step {step}"
            assert latest_snapshot(lake.catalog).snapshot_id == before + 1
    assert state(lake) == AFTER
    assert "after restore" in crashes.steps
    assert len(crashes.steps) == step > 15


@pytest.mark.parametrize(
    "moment",
    ["before _carry_out", "after delete", "before commit", "after commit", "before snapshot", "after _carry_out"],
)
def test_a_process_killed_on_the_way_is_finished_by_the_next(
    filled: LakeStore, start_python: Any, state: Any, moment: str, publish: Any
) -> None:
    child = start_python(KILLED, filled.root, moment)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == -9, errors
    assert state(filled) == (AFTER if moment == "after _carry_out" else BEFORE)
    assert publish(filled).snapshot_id == 4
    assert state(filled) == AFTER


def test_a_commit_that_no_publication_knows_is_put_back(
    filled: LakeStore, document_rows: Rows, publish: Any, state: Any, change: Any
) -> None:
    foreign = document_rows(["foreign"])
    path = str(filled.tables_dir / "documents.lance")
    lance.write_dataset(foreign, path, mode="append")
    assert state(filled) == BEFORE
    change(filled)
    assert state(filled) == AFTER
    lance.write_dataset(foreign, path, mode="append")
    filled.table("documents").delete("doc_id = 'b'")
    publish(filled, deletes=[("mentions", "false")])
    assert state(filled) == AFTER
    publish(filled, deletes=[("documents", "doc_id = 'd'")])
    assert state(filled)["documents"] == ["b", "e", "f", "g"]


@pytest.mark.parametrize("where", ["before commit", "after commit"])
def test_a_foreign_commit_amid_a_crashed_publication_is_put_back(
    filled: LakeStore,
    document_rows: Rows,
    change: Any,
    state: Any,
    crashes: Any,
    crash: type[BaseException],
    publish: Any,
    where: str,
) -> None:
    with pytest.raises(crash), crashes.after_steps(where):
        change(filled)
    lance.write_dataset(document_rows(["foreign"]), str(filled.tables_dir / "documents.lance"), mode="append")
    recover(filled)
    assert state(filled) == AFTER
    publish(filled, deletes=[("documents", "doc_id = 'd'")])
    assert state(filled)["documents"] == ["b", "e", "f", "g"]


def test_several_open_publications_are_finished_in_order(
    filled: LakeStore, document_rows: Rows, crash: type[BaseException], monkeypatch: pytest.MonkeyPatch, ids_in: Any
) -> None:
    # Only a process that loses its lock between journal and tables can leave a second one open.
    run = new_run("test", {})
    with filled.catalog.write() as session:
        session.add(run)
        session.flush()
        base = latest_snapshot(filled.catalog).versions["documents"]
        for n, key in enumerate(("first", "second")):
            batch = write_batch(filled, "documents", document_rows([key]))
            step = {"base": base, "delete": [], "fragments": list(batch.fragments)}
            tables = {"documents": step} if n == 0 else {"mentions": step | {"fragments": []}}
            plan = {"tables": tables, "rows": []}
            session.add(models.Publication(publication_id=key, run_id=run.run_id, plan=plan))
            session.flush()
    recover(filled)
    with filled.catalog.read() as session:
        closed = [session.get_one(models.Publication, key).snapshot_id for key in ("first", "second")]
    assert closed == [3, 4]
    assert "first" in ids_in(filled, "documents", latest_snapshot(filled.catalog))


# Several at once


def test_processes_that_publish_at_once_lose_and_double_nothing(
    filled: LakeStore, start_python: Any, ids_in: Any
) -> None:
    children = [start_python(PUBLISH, filled.root, who, 5) for who in "xyz"]
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    expected = {f"{who}-{n}-{place}" for who in "xyz" for n in range(5) for place in range(3)}
    expected -= {f"{who}-{n}-2" for who in "xyz" for n in range(4)}
    at = latest_snapshot(filled.catalog)
    assert ids_in(filled, "documents", at) == sorted(expected | set(BEFORE["documents"]))
    assert at.snapshot_id == 2 + 15
    assert count(filled, models.Snapshot) == 17
    assert count(filled, models.Publication, models.Publication.snapshot_id.is_(None)) == 0
    assert count(filled, models.Lock) == 0


def take_over(lake: LakeStore) -> None:
    with lake.catalog.write() as session:
        session.merge(
            models.Lock(
                name="commit", token="theirs", host=f"not-{this_machine()}", pid=1, process_start="",
                expires_at=models.now() + timedelta(seconds=0.3),
            )
        )  # fmt: skip


def test_whoever_lost_the_lock_publishes_nothing(filled: LakeStore, document_rows: Rows, state: Any) -> None:
    batch = write_batch(filled, "documents", document_rows(["e"]))
    run = new_run("test", {})
    with filled.catalog.write() as session:
        session.add(run)
    with committing(filled) as committer:
        take_over(filled)
        with pytest.raises(LeaseLostError, match="nothing was published"):
            committer.publish(run.run_id, [Change("documents", (batch,))])
    assert count(filled, models.Publication) == 1
    recover(filled)
    assert state(filled) == BEFORE


def test_whoever_loses_the_lock_after_the_journal_leaves_the_rest_to_the_next(
    filled: LakeStore, change: Any, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = lance.LanceDataset.commit

    def slow(*args: Any, **kwargs: Any) -> Any:
        result = commit(*args, **kwargs)
        take_over(filled)
        return result

    monkeypatch.setattr(lance.LanceDataset, "commit", slow)
    with pytest.raises(LeaseLostError):
        change(filled)
    monkeypatch.undo()
    assert state(filled) == BEFORE
    recover(filled)
    assert state(filled) == AFTER
    assert latest_snapshot(filled.catalog).snapshot_id == 3


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["the same", "other rows", "a deletion"])
def test_whoever_was_held_for_dead_and_comes_late_amid_a_publication_changes_nothing(
    filled: LakeStore,
    change: Any,
    state: Any,
    document_rows: Rows,
    publish: Any,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    what: str,
) -> None:
    commit, path = lance.LanceDataset.commit, str(filled.tables_dir / "documents.lance")
    late = [lance.dataset(path)]  # opened before the lock was lost

    def come_late(args: tuple[Any, ...]) -> None:
        if what == "the same":
            commit(late.pop(), *args[1:])
        elif what == "other rows":
            lance.write_dataset(document_rows(["foreign"]), late.pop(), mode="append")
        else:
            late.pop().delete("doc_id = 'd'")

    def commit_amid(*args: Any, **kwargs: Any) -> Any:
        if late and when == "before":
            come_late(args)
        made = commit(*args, **kwargs)
        if late:
            come_late(args)
        return made

    monkeypatch.setattr(lance.LanceDataset, "commit", commit_amid)
    change(filled)
    monkeypatch.undo()
    assert state(filled) == AFTER
    publish(filled, deletes=[("documents", "doc_id = 'e'")])
    assert state(filled)["documents"] == ["b", "d", "f", "g"]


def test_an_index_over_rows_of_a_late_holder_is_not_published(
    filled: LakeStore, document_rows: Rows, state: Any
) -> None:
    run = new_run("test", {})
    with filled.catalog.write() as session:
        session.add(run)
    with committing(filled) as committer:
        documents = committer.as_published("documents")
        lance.write_dataset(document_rows(["foreign"]), str(filled.tables_dir / "documents.lance"), mode="append")
        documents.create_scalar_index("source", "BITMAP")
        with pytest.raises(LeaseLostError, match="changed meanwhile"):
            committer.publish(run.run_id, [], adopt=["documents"])
    recover(filled)
    assert state(filled) == BEFORE
