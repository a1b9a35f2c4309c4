"""Small lakes without a model, crashes at any step of an operation, and other processes."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from proponent import migrations
from proponent.schema import catalog as models
from proponent.schema.tables import DOCUMENTS, MENTIONS, PASSAGES
from proponent.store import lake as lake_module
from proponent.store.catalog import Catalog
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


class Crash(BaseException):
    """Stands for a process that ends here: nothing catches it."""


@pytest.fixture
def crash() -> type[BaseException]:
    return Crash


class Crashes:
    """Ends the operation inside a with block at its n-th step: the moment before or after a durable act."""

    def __init__(self) -> None:
        self.at: int | str | None = None
        self.steps: list[str] = []

    @contextmanager
    def after_steps(self, at: int | str) -> Iterator[None]:
        """Raise Crash at a step, by number (from 0) or by name, or not at all when there is no such step."""
        self.at, self.steps = at, []
        try:
            yield
        finally:
            self.at = None

    def step(self, name: str) -> None:
        if self.at is None:
            return
        self.steps.append(name)
        if self.at in (len(self.steps) - 1, name):
            self.at = None  # what the dying process still does in its finally blocks is not interrupted
            raise Crash(name)


@pytest.fixture
def crashes(monkeypatch: pytest.MonkeyPatch) -> Crashes:
    """Make every durable act of the store a place where the process can end, just before it or just after it."""
    control = Crashes()

    def around(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def acted(*args: Any, **kwargs: Any) -> Any:
            control.step(f"before {name}")
            result = original(*args, **kwargs)
            control.step(f"after {name}")
            return result

        monkeypatch.setattr(owner, name, acted)

    for name in ("delete", "commit", "restore"):
        around(lance.LanceDataset, name)
    for owner, name in ((lance, "write_dataset"), (Path, "mkdir"), (Path, "replace"), (lake_module.os, "fsync")):
        around(owner, name)
    write = Catalog.write

    @contextmanager
    def crashing_write(catalog: Catalog) -> Iterator[Any]:
        control.step("before a catalog transaction")
        with write(catalog) as session:
            yield session
            session.flush()
            control.step("before a catalog commit")
        control.step("after a catalog commit")

    monkeypatch.setattr(Catalog, "write", crashing_write)
    return control


@pytest.fixture
def start_python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start another Python with a script and arguments; what still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *args: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, *map(str, args)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
