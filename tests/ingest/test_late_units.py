"""A unit that its worker hands in too late, since another was given it, leaves nothing behind."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

import proponent
from proponent.ingest import encode_work, read_work
from proponent.lake import Lake
from proponent.schema.catalog import Unit, now
from proponent.schema.settings import EncoderSettings

SMALL = EncoderSettings(blocks=1, side=8, moments="none", sample=40)


@pytest.fixture
def lake(tmp_path: Path, checkpoint_dir: Path) -> Any:
    with proponent.init(tmp_path / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        yield lake


@pytest.fixture
def corpus(tmp_path: Path, sentences: list[str]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(sentences)), "utf-8")
    return path


def lost_once(lake: Lake, do: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Do units, of which the first is given to another worker while it is done."""
    lost: list[dict[str, Any]] = []

    def done(*arguments: Any) -> dict[str, Any]:
        result = do(*arguments)
        if not lost:
            lost.append(result)
            elsewhere = {"token": "another's", "host": "elsewhere/1", "expires_at": now() - timedelta(seconds=1)}
            with lake.store.catalog.write() as session:
                assert session.connection().execute(update(Unit).values(**elsewhere)).rowcount == 1
        return result

    return done


def left_over(lake: Lake) -> list[Any]:
    return [finding for finding in lake.check(deep=True) if finding["grade"] != "note"]


def test_of_an_ingest(lake: Lake, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_work.ReadWork, "do", lost_once(lake, read_work.ReadWork.do))
    assert lake.ingest(corpus, corpus="c").added == 60
    assert left_over(lake) == []


def test_of_an_encoding(lake: Lake, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.ingest(corpus, corpus="c")
    monkeypatch.setattr(encode_work.EncodeWork, "do", lost_once(lake, encode_work.EncodeWork.do))
    assert lake.encode(settings=SMALL).encoded == 60
    assert left_over(lake) == []


def test_of_a_run_that_is_over(lake: Lake) -> None:
    given = lake.store.root / "work" / "a-run" / "ids" / "0.parquet"
    assert isinstance(given, Path)
    given.parent.mkdir(parents=True)
    given.touch()
    nothing: Any = None
    late = read_work.ReadWork(lake.store, "a-run", nothing, nothing, nothing, nothing, set())
    late.undo({"batches": []})
    assert left_over(lake) == []
    assert not (lake.store.root / "work" / "a-run").exists()
