"""A lake that has everything a question can meet, with random encodings in the place of a model's."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from proponent import migrations
from proponent.query.session import Session
from proponent.schema import catalog as models
from proponent.schema.ids import document_id, passage_id, text_hash
from proponent.schema.tables import DOCUMENTS, HITS, MENTIONS, NEAR_DUPLICATES, PASSAGES
from proponent.store.codes import codes_arrays, quantise
from proponent.store.commit import Changes, committing, write_batch
from proponent.store.lake import DEFAULT_CATALOG, LakeStore, create_store
from proponent.store.runs import new_run, recorded_run
from proponent.store.snapshots import Snapshot, latest_snapshot

DIM = 64
SOURCES = ["news", "wiki", "O'Reilly", None, "wëb"]
ENTITIES = ["France", "Peru", "日本", "Côte d'Ivoire", "O'Higgins"]


def _documents() -> list[dict[str, Any]]:
    blank = {field.name: None if field.nullable else "" for field in DOCUMENTS}
    return [
        blank
        | {
            "doc_id": document_id("corpus", f"d{n}"),
            "doc_key": f"d{n}",
            "corpus": "corpus",
            "source": SOURCES[n % 5],
            "published": None if n % 7 == 0 else date(2000, 1, 1) + timedelta(days=97 * n),
            "published_precision": None if n % 7 == 0 else "day",
            "title": None if n % 4 == 0 else f"Title {n} 100%",
            "language": ["en", "fr"][n % 2],
            "trained_on": [True, False, None][n % 3],
            "n_passages": n % 4,
            "metadata": f'{{"stars": {n % 6}, "tags": ["a", "b"]}}' if n % 2 else "{}",
        }
        for n in range(60)
    ]


def _passages(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for n, document in enumerate(documents):
        for ordinal in range(document["n_passages"]):
            text = f"Repeated text {n % 3}." if ordinal == 1 else f"Text {ordinal} of document {n}: ünïcode_%."
            rows.append(
                {
                    "passage_id": passage_id(document["doc_id"], ordinal, text),
                    "doc_id": document["doc_id"],
                    "ordinal": ordinal,
                    "char_start": ordinal * 100,
                    "char_end": ordinal * 100 + len(text),
                    "n_tokens": None if n % 5 == 0 else n + ordinal,
                    "text": text,
                    "text_hash": text_hash(text),
                }
            )
    return rows


def _mentions(passages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "passage_id": row["passage_id"],
            "doc_id": row["doc_id"],
            "entity": entity,
            "surface": [None, entity, entity.upper()][place],
            "type": ["GPE", "ORG", None][(n + place) % 3],
            "origin": ["corpus", "gazetteer names", "spacy tiny"][place],
            "char_start": None if place == 0 else n,
            "char_end": None if place == 0 else n + len(entity),
        }
        for n, row in enumerate(passages)
        for place, entity in enumerate([ENTITIES[n % 5], *([ENTITIES[(n + 1) % 5]] * 2 if n % 2 else [])])
        if n % 4
    ]


def _near_duplicates(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mark every seventh document, the last of them as it was before it changed."""
    original, *others = documents[::7]
    return [
        {
            "doc_id": one["doc_id"],
            "of_doc_id": original["doc_id"],
            "similarity": 0.9,
            "content_hash": "of an earlier version" if one is others[-1] else one["content_hash"],
            "of_content_hash": original["content_hash"],
        }
        for one in others
    ]


def _encodings(passages: list[dict[str, Any]]) -> pa.Table:
    keys = sorted({row["text_hash"] for row in passages})[2:]  # two texts are not encoded
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((len(keys), DIM)).astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    return pa.table(
        {
            "text_hash": keys,
            "norm": norms * draw.uniform(0.5, 2, len(keys)).astype(np.float32),
            "loss": np.ones(len(keys), np.float32),
            "n_tokens": np.ones(len(keys), np.int32),
            **codes_arrays(quantise(vectors / norms[:, None], "int8")),
        }
    )


def _catalog_rows() -> list[list[models.Base]]:
    model = models.Model(
        model_id="m", name="m", path="p", architecture="a", n_parameters=1, n_layers=1, context_length=8,
        weights_hash="w", tokenizer_hash="t",
    )  # fmt: skip
    encoders = [
        models.Encoder(
            name=name, encoder_id=f"id-{name}", model_id="m", dim=DIM, moments="none", settings={"blocks": 1},
            projection_hash="x", coverage=1.0, uncovered=["lm_head"], artifact="x",
        )
        for name in ("e", "by_text", "idle")
    ]  # fmt: skip
    return [[model], encoders, [models.Query(query_id="q", prompt="The capital of", target=" France")]]


def _trace() -> models.Trace:
    return models.Trace(
        trace_id="trace", query_id="q", encoder="e", curvature="reference", method="trackstar", snapshot=1, k=2,
        exact=True, n_candidates=9, target_loss=1.5, target_tokens=1, completed=False, settings={},
    )  # fmt: skip


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeStore]:
    """A lake of three snapshots (empty, documents, encodings and a trace) that tests only read."""
    run = new_run("init", {})
    run.status, run.finished_at = "done", models.now()
    root: Path = tmp_path_factory.mktemp("filled") / "lake"
    lake = create_store(root, catalog=DEFAULT_CATALOG, upgrade=migrations.upgrade, run=run)
    for group in _catalog_rows():
        with lake.catalog.write() as session:
            session.add_all(group)
    documents = _documents()
    passages = _passages(documents)
    hits = [
        {"trace_id": "trace", "side": side, "rank": 1, "passage_id": passages[place]["passage_id"], "score": score,
         "percentile": 99.0}
        for side, place, score in (("proponent", 3, 0.5), ("opponent", 4, -0.5))
    ]  # fmt: skip
    first = {
        "documents": (documents, DOCUMENTS),
        "passages": (passages, PASSAGES),
        "mentions": (_mentions(passages), MENTIONS),
        "near_duplicates": (_near_duplicates(documents), NEAR_DUPLICATES),
    }
    with recorded_run(lake.catalog, "test", {}) as run, committing(lake) as committer:
        changes = Changes()
        for name, (rows, schema) in first.items():
            changes.append(write_batch(lake, name, pa.Table.from_pylist(rows, schema)))
        committer.publish(run.run_id, changes.take())
        for name in ("e", "by_text"):
            lake.create_table(f"encodings_{name}")
            changes.append(write_batch(lake, f"encodings_{name}", _encodings(passages)))
        changes.append(write_batch(lake, "hits", pa.Table.from_pylist(hits, HITS)))
        committer.publish(run.run_id, changes.take(), rows=[_trace()])
    yield lake
    lake.close()


@pytest.fixture(scope="session")
def at(filled: LakeStore) -> Snapshot:
    return latest_snapshot(filled.catalog)


@pytest.fixture(scope="module")
def session(filled: LakeStore, at: Snapshot) -> Iterator[Session]:
    with Session(filled, at, threads=1) as session:
        yield session
