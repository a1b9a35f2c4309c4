"""What queries read from disk: never a vector, and of passages only those of hits where that is all that is asked."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from proponent.query.session import Session
from proponent.schema import catalog as models
from proponent.schema.tables import encodings_schema, encodings_table
from proponent.store.codes import codes_arrays, quantise
from proponent.store.commit import Changes, committing, write_batch
from proponent.store.lake import LakeStore, open_store
from proponent.store.runs import recorded_run
from proponent.store.snapshots import latest_snapshot

COUNTER = Path("/proc/self/io")
pytestmark = pytest.mark.skipif(not COUNTER.exists(), reason="only Linux counts what a process reads")
DIM, N = 1 << 16, 60
VECTORS = N * DIM
"""Bytes of the vectors' codes."""


@pytest.fixture(scope="module")
def wide(filled: LakeStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LakeStore]:
    """The lake with long vectors."""
    root = tmp_path_factory.mktemp("wide") / "lake"
    shutil.copytree(filled.root, root)
    lake = open_store(root)
    encoder = models.Encoder(
        name="wide", encoder_id="id-wide", model_id="m", dim=DIM, moments="none", settings={}, projection_hash="x",
        coverage=1.0, uncovered=[], artifact="x",
    )  # fmt: skip
    with lake.catalog.write() as session:
        session.add(encoder)
    hashes = lake.table("passages", at=latest_snapshot(lake.catalog)).to_table(columns=["text_hash"])["text_hash"]
    vectors = np.random.default_rng(0).standard_normal((N, DIM)).astype(np.float32) / DIM**0.5
    ones = np.ones(N, np.float32)
    columns = {"norm": ones, "loss": ones, "n_tokens": ones.astype(np.int32), **codes_arrays(quantise(vectors, "int8"))}
    rows = pa.table({"text_hash": hashes.unique()[:N]} | columns, schema=encodings_schema(DIM, "int8"))
    with recorded_run(lake.catalog, "test", {}) as run, committing(lake) as committer:
        lake.create_table(encodings_table("wide"))
        changes = Changes()
        changes.append(write_batch(lake, encodings_table("wide"), rows))
        committer.publish(run.run_id, changes.take())
    yield lake
    lake.close()


def bytes_read(task: Callable[[], object]) -> int:
    """Return how many bytes this process reads while it does a task."""

    def counted() -> int:
        return int(COUNTER.read_text().split("rchar: ")[1].split()[0])

    before = counted()
    task()
    return counted() - before


def test_the_counter_sees_vectors_that_are_read(wide: LakeStore) -> None:
    encodings = wide.table(encodings_table("wide"), at=latest_snapshot(wide.catalog))
    assert bytes_read(lambda: encodings.to_table(columns=["codes"])) > VECTORS


def test_no_relation_reads_vectors(wide: LakeStore) -> None:
    with Session(wide, latest_snapshot(wide.catalog)) as session:
        assert len(session.sql("FROM encodings WHERE encoder = 'wide'"))
        relations = [row.name for row in session.sql("SHOW TABLES")]
        for relation in relations:
            assert bytes_read(lambda: session.sql(f"FROM {relation}").to_arrow()) < VECTORS / 4, relation  # noqa: B023


def test_a_session_opens_without_reading_vectors(wide: LakeStore) -> None:
    at = latest_snapshot(wide.catalog)
    assert bytes_read(lambda: Session(wide, at).close()) < VECTORS / 4
