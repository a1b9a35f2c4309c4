"""Small lakes without a model."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from proponent import migrations
from proponent.schema import catalog as models
from proponent.schema.tables import DOCUMENTS, MENTIONS, PASSAGES
from proponent.store import lake as lake_module
from proponent.store.codes import codes_arrays, quantise
from proponent.store.commit import Change, Changes, committing, write_batch
from proponent.store.lake import LakeStore, create_store
from proponent.store.runs import new_run
from proponent.store.snapshots import Snapshot


@pytest.fixture
def make_lake(tmp_path: Path) -> Iterator[Callable[..., LakeStore]]:
    made: list[LakeStore] = []

    def make(path: Path | None = None, *, catalog: str = lake_module.DEFAULT_CATALOG) -> LakeStore:
        run = new_run("init", {})
        run.status, run.finished_at = "done", models.now()
        made.append(create_store(path or tmp_path / "lake", catalog=catalog, upgrade=migrations.upgrade, run=run))
        return made[-1]

    yield make
    for lake in made:
        lake.close()


@pytest.fixture
def lake(make_lake: Callable[..., LakeStore]) -> LakeStore:
    return make_lake()


@pytest.fixture
def document_rows() -> Callable[[Sequence[str]], pa.Table]:
    def rows(ids: Sequence[str]) -> pa.Table:
        blank = {field.name: None if field.nullable else "" for field in DOCUMENTS} | {"n_passages": 0}
        return pa.Table.from_pylist([blank | {"doc_id": name, "doc_key": name} for name in ids], schema=DOCUMENTS)

    return rows


@pytest.fixture
def mention_rows() -> Callable[[Sequence[str]], pa.Table]:
    def rows(ids: Sequence[str]) -> pa.Table:
        blank = {field.name: None if field.nullable else "" for field in MENTIONS}
        return pa.Table.from_pylist([blank | {"doc_id": name, "entity": name} for name in ids], schema=MENTIONS)

    return rows


@pytest.fixture
def passage_rows() -> Callable[[Sequence[str]], pa.Table]:
    """Return passages of documents of their own, with texts of the given hashes."""

    def rows(hashes: Sequence[str]) -> pa.Table:
        blank = {"ordinal": 0, "char_start": 0, "char_end": 1, "n_tokens": None, "text": "x"}
        named = [{"passage_id": f"p{key}", "doc_id": f"d{key}", "text_hash": key} for key in hashes]
        return pa.Table.from_pylist([blank | row for row in named], schema=PASSAGES)

    return rows


@pytest.fixture
def publish() -> Callable[..., Snapshot]:
    """Publish batches and deletions of a lake's tables in one snapshot, as a run would."""

    def publish(
        lake: LakeStore,
        batches: Sequence[tuple[str, pa.Table]] = (),
        deletes: Sequence[tuple[str, str]] = (),
        **more: Any,
    ) -> Snapshot:
        run = new_run("test", {})
        with lake.catalog.write() as session:
            session.add(run)
        changes = Changes()
        for table, rows in batches:
            changes.append(write_batch(lake, table, rows))
        for table, predicate in deletes:
            changes.delete(table, predicate)
        taken: list[Change] = changes.take()
        with committing(lake) as committer:
            return committer.publish(run.run_id, taken, **more)

    return publish


@pytest.fixture
def ids_in() -> Callable[..., list[str]]:
    """Return the doc_ids of a table, sorted, so that a doubled row is seen."""

    def ids(lake: LakeStore, table: str, at: Snapshot | None) -> list[str]:
        return sorted(lake.table(table, at=at).to_table(columns=["doc_id"])["doc_id"].to_pylist())

    return ids


@pytest.fixture
def add_encoder() -> Callable[..., models.Encoder]:
    def add(lake: LakeStore, name: str, *, dim: int, codes: str = "int8") -> models.Encoder:
        text = "x"
        model = models.Model(
            model_id=f"model-{name}", name=name, path=text, architecture=text, n_parameters=1, n_layers=1,
            context_length=8, weights_hash=text, tokenizer_hash=text,
        )  # fmt: skip
        encoder = models.Encoder(
            name=name, encoder_id=f"id-{name}", model_id=model.model_id, dim=dim, codes=codes, moments="none",
            settings={}, projection_hash=text, coverage=1.0, uncovered=[], artifact=text,
        )  # fmt: skip
        with lake.catalog.write() as session:
            session.add(model)
            session.flush()
            session.add(encoder)
        with committing(lake):
            lake.create_table(f"encodings_{name}")
        return encoder

    return add


@pytest.fixture
def encoding_rows() -> Callable[..., pa.Table]:
    """Return rows of an encodings table from vectors (n, d), whose norms are stored apart."""

    def rows(keys: Sequence[str], vectors: np.ndarray, codes: str = "int8") -> pa.Table:
        norms = np.linalg.norm(vectors, axis=1).astype(np.float32)
        return pa.table(
            {
                "text_hash": pa.array(list(keys), pa.string()),
                "norm": norms,
                "loss": np.ones(len(keys), np.float32),
                "n_tokens": np.ones(len(keys), np.int32),
                **codes_arrays(quantise((vectors / norms[:, None]).astype(np.float32), codes)),
            }
        )

    return rows
