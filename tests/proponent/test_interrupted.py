"""A process that dies between planning a publication and its snapshot: the next one finishes it, once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

import proponent
from proponent.ingest import read_work
from proponent.lake import Lake
from proponent.schema import catalog as models
from proponent.schema.errors import LeaseLostError, SettingsError
from proponent.schema.settings import EncoderSettings
from proponent.store.commit import Committer
from proponent.store.lake import LakeStore

SETTINGS = EncoderSettings(side=8, blocks=1, sample=40, moments="none")


class ProcessDied(BaseException):
    """Stands for a kill: nothing in the program catches it, but `finally` still runs, so locks are given up."""


@pytest.fixture
def dies(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Call something that dies when its publication is planned and nothing of it is carried out."""

    def call(action: Callable[[], object]) -> None:
        def die(*_arguments: object) -> None:
            raise ProcessDied

        with monkeypatch.context() as patch:
            patch.setattr(Committer, "_carry_out", die)
            with pytest.raises(ProcessDied):
                action()

    return call


@pytest.fixture
def rows(tmp_path: Path, sentences: list[str]) -> Path:
    path = tmp_path / "rows.jsonl"
    texts = [{"id": str(n), "text": text, "entities": ["France"]} for n, text in enumerate(sentences)]
    path.write_text("".join(json.dumps(row) + "\n" for row in texts), "utf-8")
    return path


@pytest.fixture
def lake(tmp_path: Path, checkpoint_dir: Path) -> Any:
    with proponent.init(tmp_path / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        yield lake


def number(lake: Lake, relation: str) -> int:
    [row] = lake.sql(f"SELECT count(*) AS n FROM {relation}")
    return int(row.n)


def test_an_ingest_that_died_while_publishing_is_finished_and_not_doubled(
    lake: Lake, rows: Path, dies: Callable[[Callable[[], object]], None], sentences: list[str]
) -> None:
    dies(lambda: lake.ingest(rows, corpus="c"))
    assert number(lake, "corpora") == number(lake, "documents") == 0
    assert lake.ingest(rows, corpus="c").added == len(sentences), "what the run that died could not say any more"
    assert lake.ingest(rows, corpus="c").unchanged == len(sentences)
    assert number(lake, "documents") == number(lake, "passages") == len(sentences)
    assert number(lake, "corpora") == 1


def test_an_encode_that_died_while_publishing_is_finished_and_not_doubled(
    lake: Lake, rows: Path, dies: Callable[[Callable[[], object]], None], sentences: list[str]
) -> None:
    lake.ingest(rows, corpus="c")
    dies(lambda: lake.encode(settings=SETTINGS))
    assert number(lake, "encodings") == 0
    assert lake.encode(settings=SETTINGS).encoded == 0
    assert number(lake, "encodings") == len(sentences)


def test_a_trace_that_died_while_publishing_has_its_hits_when_it_is_seen(
    lake: Lake, rows: Path, dies: Callable[[Callable[[], object]], None]
) -> None:
    lake.ingest(rows, corpus="c")
    lake.encode(settings=SETTINGS)
    ask = {"method": "logra", "k": 3}
    dies(lambda: lake.trace("The capital of", " France", **ask))
    assert number(lake, "traces") == number(lake, "hits") == 0
    found = lake.trace("The capital of", " France", **ask)
    assert 0 < len(found) == number(lake, "hits")
    assert number(lake, "traces") == 1


def test_an_ingest_whose_lock_was_taken_over_publishes_nothing(
    lake: Lake, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_work.read_file

    def take_over(store: LakeStore) -> None:
        with store.catalog.write() as session:
            session.execute(update(models.Lock).where(models.Lock.name == "ingest c").values(token="theirs"))

    def read_slowly(*file: Any, **options: Any) -> Any:
        yield from read(*file, **options)
        take_over(lake.store)

    monkeypatch.setattr(read_work, "read_file", read_slowly)
    with pytest.raises(LeaseLostError):
        lake.ingest(rows, corpus="c")
    assert number(lake, "documents") == 0
    assert number(lake, "publications") == 0


def test_a_report_shows_what_was_searched_after_the_document_has_changed(
    lake: Lake, rows: Path, tmp_path: Path, sentences: list[str]
) -> None:
    lake.ingest(rows, corpus="c")
    lake.encode(settings=SETTINGS)
    [trace_id] = lake.trace_all([("The capital of", " France")], method="logra", k=3)
    before = lake.report(trace_id, tmp_path / "a.html").read_bytes()
    rows.write_text(
        "".join(json.dumps({"id": str(n), "text": "Other."}) + "\n" for n in range(len(sentences))), "utf-8"
    )
    assert lake.ingest(rows, corpus="c").updated == len(sentences)
    assert lake.report(trace_id, tmp_path / "b.html").read_bytes() == before


def test_a_second_model_makes_the_tokenizer_a_question(
    lake: Lake, rows: Path, tmp_path: Path, make_checkpoint: Callable[..., Path]
) -> None:
    lake.ingest(rows, corpus="c")
    lake.add_model(make_checkpoint(tmp_path / "other", seed=1), name="other")
    with pytest.raises(SettingsError, match="--tokenizer"):
        lake.ingest(rows, corpus="c")
