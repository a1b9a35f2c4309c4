"""An extractor reads what it has not read yet, and leaves the lake as if it had read all of it at once."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

import proponent
from proponent.ingest import entities
from proponent.ingest.entities import extract
from proponent.ingest.extractor import Entity, Extractor, Mention
from proponent.ingest.gazetteer import Gazetteer
from proponent.schema import catalog as models
from proponent.schema.errors import LakeBusyError, SettingsError
from proponent.store.commit import Committer, committing
from proponent.store.leases import lease

Write = Callable[..., Path]
Rows = list[dict[str, Any]]

NAMES = ("France", "Peru", "Lima", "Côte d'Ivoire")
TEXTS = {
    "a": "Paris is in France.",
    "b": "Nothing here.",
    "c": "FRANCE and Peru.",
    "d": "À Côte d'Ivoire 🦜, puis Lima",
}


class Meanwhile(Gazetteer):
    """A gazetteer during whose reading something else happens."""

    def __init__(self, happens: Callable[[], object], *names: str) -> None:
        super().__init__(named(*names))
        self._happens = happens

    def find_all(self, texts: Sequence[str]) -> Iterator[list[Mention]]:
        self._happens()
        return super().find_all(texts)


def named(*names: str) -> dict[str, tuple[Entity, ...]]:
    return {name: (Entity(name, None),) for name in names}


@pytest.fixture
def put(write_jsonl: Write) -> Callable[..., Any]:
    """Ingest documents, given as texts by their ids."""

    def ingest(lake: proponent.Lake, texts: dict[str, str], *, corpus: str = "c", **fields: Any) -> Any:
        rows = [{"id": key, "text": text, **fields} for key, text in texts.items()]
        return lake.ingest(write_jsonl(rows), corpus=corpus)

    return ingest


@pytest.fixture
def filled(lake: proponent.Lake, put: Callable[..., Any]) -> proponent.Lake:
    put(lake, TEXTS)
    return lake


@pytest.fixture
def same_as_anew(read_table: Callable[..., Rows]) -> Callable[[proponent.Lake, Extractor], None]:
    """Require of the mentions of `extract(..., name="x")` that the same extractor under another name finds the same."""

    def compare(lake: proponent.Lake, extractor: Extractor) -> None:
        extract(lake.store, extractor, name="anew")
        rows: dict[str, Rows] = {f"{extractor.kind} x": [], f"{extractor.kind} anew": []}
        for row in read_table(lake, "mentions"):
            rows[row.pop("origin")].append(row)
        grown, anew = rows.values()
        assert grown == anew != []

    return compare


def test_what_was_read_is_not_read_again(filled: proponent.Lake) -> None:
    first = extract(filled.store, Gazetteer(named(*NAMES)), name="x")
    assert (first.passages, first.known, first.mentions, first.replaced) == (4, 0, 5, 0)
    before = filled.snapshot
    again = extract(filled.store, Gazetteer(named(*NAMES)), name="x")
    assert (again.passages, again.known, again.mentions, again.replaced) == (0, 4, 0, 0)
    assert filled.snapshot == before


def test_new_documents_are_read_alone_and_the_same_is_found_as_anew(
    filled: proponent.Lake, put: Callable[..., Any], same_as_anew: Callable[..., None]
) -> None:
    gazetteer = Gazetteer(named(*NAMES))
    extract(filled.store, gazetteer, name="x")
    put(filled, {"e": "Lima, Peru"})
    put(filled, {"a": "From another corpus: Peru."}, corpus="d")
    counts = extract(filled.store, gazetteer, name="x")
    assert (counts.passages, counts.known, counts.mentions, counts.entities) == (2, 4, 3, 2)
    same_as_anew(filled, gazetteer)


def test_a_document_that_changed_and_changed_back_is_read_again(
    filled: proponent.Lake, put: Callable[..., Any], same_as_anew: Callable[..., None]
) -> None:
    """Its passage has its first id again, and had lost its mentions."""
    gazetteer = Gazetteer(named(*NAMES))
    extract(filled.store, gazetteer, name="x")
    put(filled, {"a": "Lima."})
    put(filled, {"a": TEXTS["a"]})
    put(filled, {"c": TEXTS["c"]}, title="only the title is new")
    counts = extract(filled.store, gazetteer, name="x")
    assert (counts.passages, counts.known, counts.mentions) == (2, 2, 3)
    same_as_anew(filled, gazetteer)


def test_withdrawn_documents_are_neither_read_nor_kept(
    filled: proponent.Lake, put: Callable[..., Any], same_as_anew: Callable[..., None]
) -> None:
    gazetteer = Gazetteer(named(*NAMES))
    extract(filled.store, gazetteer, name="x")
    put(filled, {"e": "Peru", "f": "Peru"})
    filled.delete("doc_key IN ('a', 'e')")
    counts = extract(filled.store, gazetteer, name="x")
    assert (counts.passages, counts.known, counts.mentions) == (1, 3, 1)
    same_as_anew(filled, gazetteer)


def test_another_version_reads_everything_and_replaces_what_was_found(
    filled: proponent.Lake, same_as_anew: Callable[..., None]
) -> None:
    extract(filled.store, Gazetteer(named(*NAMES)), name="x")
    less = Gazetteer(named("France"))
    counts = extract(filled.store, less, name="x")
    assert (counts.passages, counts.mentions, counts.replaced) == (4, 2, 5)
    same_as_anew(filled, less)


def test_passages_without_a_mention_count_as_read(filled: proponent.Lake) -> None:
    nowhere = Gazetteer(named("Atlantis"))
    assert extract(filled.store, nowhere, name="x").passages == 4
    assert extract(filled.store, nowhere, name="x").passages == 0


def test_a_failed_run_does_not_count_as_read(filled: proponent.Lake) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    before = filled.snapshot
    with pytest.raises(KeyboardInterrupt):
        extract(filled.store, Meanwhile(stop, *NAMES), name="x")
    assert filled.snapshot == before
    assert extract(filled.store, Gazetteer(named(*NAMES)), name="x").passages == 4


def test_a_run_that_died_while_publishing_is_finished_and_counts_as_read(
    filled: proponent.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Committer, "_carry_out", die)
        with pytest.raises(KeyboardInterrupt):
            extract(filled.store, Gazetteer(named(*NAMES)), name="x")
    counts = extract(filled.store, Gazetteer(named(*NAMES)), name="x")
    assert (counts.passages, counts.known) == (0, 4)
    [row] = filled.sql("SELECT count(*) AS n FROM mentions")
    assert row.n == 5


def test_what_is_ingested_and_withdrawn_meanwhile_is_seen(
    filled: proponent.Lake, put: Callable[..., Any], same_as_anew: Callable[..., None]
) -> None:
    happened = []

    def happens() -> None:
        if not happened:
            happened.append(True)
            put(filled, {"a": "Peru came instead.", "e": "Lima is new."})
            put(filled, {"a": "In a corpus that is new, too: Lima."}, corpus="d")
            filled.delete("doc_key = 'c'")

    extractor = Meanwhile(happens, *NAMES)
    first = extract(filled.store, extractor, name="x")
    assert (first.passages, first.mentions) == (4, 2)  # those of document d alone: a has changed and c is gone
    second = extract(filled.store, extractor, name="x")
    assert (second.passages, second.known, second.mentions) == (3, 2, 3)
    same_as_anew(filled, extractor)


def test_what_changes_at_the_last_moment_is_seen(
    filled: proponent.Lake, monkeypatch: pytest.MonkeyPatch, same_as_anew: Callable[..., None]
) -> None:
    """Between the look at the documents and the lock under which they stay as they are."""
    happened = []

    def committing_late(*arguments: Any, **settings: Any) -> Any:
        if not happened:
            happened.append(True)
            filled.delete("doc_key = 'c'")
        return committing(*arguments, **settings)

    monkeypatch.setattr(entities, "committing", committing_late)
    gazetteer = Gazetteer(named(*NAMES))
    assert extract(filled.store, gazetteer, name="x").mentions == 3
    same_as_anew(filled, gazetteer)


def test_documents_that_one_run_published_in_parts_get_their_mentions_once(
    filled: proponent.Lake, same_as_anew: Callable[..., None]
) -> None:
    gazetteer = Gazetteer(named(*NAMES))
    extract(filled.store, gazetteer, name="x")
    with filled.store.catalog.read() as session:
        run_id = session.scalars(select(models.Run.run_id).where(models.Run.kind == "ingest")).one()
    with committing(filled.store) as committer:
        committer.publish(run_id, [])
    counts = extract(filled.store, gazetteer, name="x")
    assert (counts.passages, counts.mentions, counts.replaced) == (4, 5, 5)
    same_as_anew(filled, gazetteer)


def test_extractors_of_other_names_and_kinds_stand_side_by_side(filled: proponent.Lake) -> None:
    class Other(Gazetteer):
        kind = "other"

    for extractor, name in [(Gazetteer, "x"), (Gazetteer, "y"), (Other, "x")]:
        assert extract(filled.store, extractor(named("Peru")), name=name).mentions == 1
    rows = filled.sql("SELECT origin, char_start FROM mentions ORDER BY origin").to_dicts()
    assert [(row["origin"], row["char_start"]) for row in rows] == [
        ("gazetteer x", 11),
        ("gazetteer y", 11),
        ("other x", 11),
    ]


def test_many_passages_are_read_and_written_in_parts(
    lake: proponent.Lake, put: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, same_as_anew: Callable[..., None]
) -> None:
    monkeypatch.setattr(entities, "_READ_AT_ONCE", 3)
    monkeypatch.setattr(entities, "_WRITE_AT_ONCE", 2)
    put(lake, {str(n): f"Peru is number {n}." for n in range(10)})
    told: list[int] = []
    counts = extract(lake.store, Gazetteer(named("Peru")), name="x", progress=told.append)
    assert told == [3, 3, 3, 1]
    assert (counts.passages, counts.mentions, counts.entities) == (10, 10, 1)
    same_as_anew(lake, Gazetteer(named("Peru")))


def test_two_runs_of_one_extractor_do_not_meet(filled: proponent.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entities, "WAIT_S", 0.2)
    with lease(filled.store.catalog, "entities gazetteer x"):
        with pytest.raises(LakeBusyError, match="entities gazetteer x"):
            extract(filled.store, Gazetteer(named("Peru")), name="x")
        assert extract(filled.store, Gazetteer(named("Peru")), name="y").mentions == 1


def test_an_empty_lake_and_a_wrong_name_change_nothing(lake: proponent.Lake) -> None:
    before = lake.snapshot
    assert extract(lake.store, Gazetteer(named("Peru")), name="x").passages == 0
    with pytest.raises(SettingsError, match="--name"):
        extract(lake.store, Gazetteer(named("Peru")), name="'; DROP")
    assert lake.snapshot == before
    with lake.store.catalog.read() as session:
        assert session.scalar(select(func.count()).select_from(models.Publication)) == 0


def test_a_record_of_a_run_that_does_not_say_what_was_read_leaves_nothing_out(filled: proponent.Lake) -> None:
    """Such as those of lakes that were made before this was recorded."""
    extract(filled.store, Gazetteer(named("Peru")), name="x")
    with filled.store.catalog.write() as session:
        run = session.scalars(select(models.Run).where(models.Run.kind == "entities")).one()
        run.settings = {"name": "x", "file": "x.jsonl"}
    counts = extract(filled.store, Gazetteer(named("Peru")), name="x")
    assert (counts.passages, counts.mentions, counts.replaced) == (4, 1, 1)
