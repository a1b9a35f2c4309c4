"""A small lake with two encoders, and facts about what it says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import proponent
from proponent.lake import Lake
from proponent.schema.settings import EncoderSettings

SIZES: dict[str, Any] = {"side": 8, "blocks": 1, "sample": 40}
PLACES = ("France", "Peru", "Kenya")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path, sentences: list[str]) -> Iterator[Lake]:
    """Sixty sentences, every fifth of them twice; the encoder without moments has only those of three places."""
    folder = tmp_path_factory.mktemp("evaluated")
    rows = [{"id": f"d{n}", "text": text} for n, text in enumerate([*sentences, *sentences[::5]])]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with proponent.init(folder / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(folder / "rows.jsonl", corpus="c")
        lake.encode(encoder="with", settings=EncoderSettings(moments="estimated", **SIZES))
        lake.encode(encoder="without", settings=EncoderSettings(moments="none", **SIZES), only="ordinal = 0")
        lake.index_text()
        yield lake


@pytest.fixture(scope="module")
def facts(lake: Lake) -> list[dict[str, Any]]:
    """What three kinds of sentences say of three places, by their documents; one fact that nobody states."""
    known = {
        row["text"]: row["doc_key"]
        for row in lake.sql("SELECT * FROM passages JOIN documents USING (doc_id)").to_dicts()
    }
    rows = [
        {
            "id": f"{relation}-{place}",
            "prompt": f"The {relation} of {place}",
            "target": f" {rest}",
            "relation": relation,
            "subject": place,
            "object": rest.split()[-1],
            "doc_keys": [known[f"The {relation} of {place} {rest}."]],
        }
        for relation, rest in (("capital", "lies on a river"), ("currency", "is the franc"))
        for place in PLACES
    ]
    return [*rows, {"id": "unstated", "prompt": "The moon of Peru", "target": " is full"}]
