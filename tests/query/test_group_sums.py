"""Kept sums are those of a sum over all passages, whatever became of the passages since, at every snapshot."""

import errno
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from proponent import migrations
from proponent.query import group_sums as module
from proponent.query.group_sums import group_sums, sums_of
from proponent.schema import catalog as models
from proponent.schema.errors import CatalogError, DamagedLakeError, LakeBusyError, NotFoundError
from proponent.schema.settings import GROUP_KINDS
from proponent.schema.tables import DOCUMENTS, MENTIONS, PASSAGES, REJECTS, norms_table
from proponent.store import place as place_module
from proponent.store.codes import codes_arrays, dequantise, quantise, read_codes
from proponent.store.commit import Changes, committing, write_batch
from proponent.store.compaction import compact
from proponent.store.curvatures import fill_norms
from proponent.store.group_sums import GroupSums, Summed, load_sums
from proponent.store.lake import DEFAULT_CATALOG, LakeConfig, LakeStore, create_store, open_store
from proponent.store.leases import lease
from proponent.store.requantise import requantise
from proponent.store.runs import new_run, recorded_run
from proponent.store.snapshots import Snapshot, latest_snapshot, readable_snapshots
from proponent.store.withdrawn import hidden_documents

DIM = 64
CURVATURE = "somecurvature"
WEIGHTS = np.linspace(0.5, 2, DIM).astype(np.float32)
UNIT, LENGTHS = Summed("e", DIM), Summed("e", DIM, with_lengths=True)
UNDER = Summed("e", DIM, curvature_id=CURVATURE)
TEXTS = [f"t{place:025d}" for place in range(10)]
SOURCES = [None, "news", "O'Reilly", "日本", ""]
DATES = [(None, None), *((date(2001, 2, 3), how) for how in ("day", "month", "year", None)), (date(2001, 3, 1), "day")]
ENTITIES = ["France", "Côte d'Ivoire", "日本", "B"]


def norms_of(unit: np.ndarray) -> np.ndarray:
    """Stand for a curvature."""
    norms: np.ndarray = np.linalg.norm(unit * WEIGHTS, axis=1).astype(np.float32)
    return norms


class Corpus:
    """A lake whose tables a test changes as runs would."""

    def __init__(self, root: Path, *, codes: str = "int8", group_bytes: int | None = None) -> None:
        self.lake = open_store(root) if root.exists() else self._init(root, codes)
        if group_bytes is not None:
            self.lake.config = LakeConfig(group_bytes=group_bytes)
        self._draw = np.random.default_rng(0)
        self._n_documents = len(self.documents())

    @staticmethod
    def _init(root: Path, codes: str) -> LakeStore:
        run = new_run("init", {})
        run.status, run.finished_at = "done", models.now()
        lake = create_store(root, catalog=DEFAULT_CATALOG, upgrade=migrations.upgrade, run=run)
        model = models.Model(
            model_id="m", name="m", path="p", architecture="a", n_parameters=1, n_layers=1, context_length=8,
            weights_hash="w", tokenizer_hash="t",
        )  # fmt: skip
        encoder = models.Encoder(
            name="e", encoder_id="id", model_id="m", dim=DIM, codes=codes, moments="none", settings={},
            projection_hash="x", coverage=1.0, uncovered=[], artifact="x",
        )  # fmt: skip
        with lake.catalog.write() as session:
            session.add(model)
            session.flush()
            session.add(encoder)
        with committing(lake):
            lake.create_table("encodings_e")
        return lake

    @property
    def at(self) -> Snapshot:
        return latest_snapshot(self.lake.catalog)

    def rows(self, table: str, at: Snapshot | None = None) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.lake.table(table, at=at or self.at).to_table().to_pylist()
        return rows

    def change(
        self, add: dict[str, pa.Table] | None = None, delete: Sequence[tuple[str, str]] = (), withdrawn: bool = False
    ) -> None:
        with recorded_run(self.lake.catalog, "test", {}) as run, committing(self.lake) as committer:
            changes = Changes()
            for table, rows in (add or {}).items():
                if len(rows):
                    changes.append(write_batch(self.lake, table, rows))
            for table, predicate in delete:
                changes.delete(table, predicate)
            ids = [predicate.split("'")[1] for table, predicate in delete if table == "documents" and withdrawn]
            rows = [
                models.Withdrawal(withdrawal_id=f"w{one}", doc_id=one, doc_key=one, corpus="c", run_id=run.run_id)
                for one in ids
            ]
            committer.publish(run.run_id, changes.take(), rows=rows)

    def documents(self) -> list[str]:
        return sorted(row["doc_id"] for row in self.rows("documents"))

    def add(self, texts: Sequence[int], *, source: int, when: int, entities: Sequence[int], doc_id: str = "") -> None:
        """Add a document, or with its id another version of it, which may be encoded already or not."""
        if not doc_id:
            self._n_documents += 1
            doc_id = f"d{self._n_documents}"
        published, precision = DATES[when]
        blank = {field.name: None if field.nullable else "" for field in DOCUMENTS}
        document = blank | {
            "doc_id": doc_id, "doc_key": doc_id, "corpus": f"c{source % 2}", "source": SOURCES[source],
            "published": published, "published_precision": precision, "n_passages": len(texts),
        }  # fmt: skip
        passages = [
            {"passage_id": f"{doc_id}/{ordinal}/{text}", "doc_id": doc_id, "ordinal": ordinal, "char_start": 0,
             "char_end": 1, "n_tokens": None, "text": "x", "text_hash": TEXTS[text]}
            for ordinal, text in enumerate(texts)
        ]  # fmt: skip
        blank = {field.name: None if field.nullable else "" for field in MENTIONS}
        mentions = [
            blank | {"passage_id": row["passage_id"], "doc_id": doc_id, "entity": ENTITIES[one]}
            for row in passages
            for one in entities  # the same one may be mentioned twice
        ]
        add = {
            "documents": pa.Table.from_pylist([document], DOCUMENTS),
            "passages": pa.Table.from_pylist(passages, PASSAGES),
            "mentions": pa.Table.from_pylist(mentions, MENTIONS),
        }
        self.change(add, [(table, f"doc_id = '{doc_id}'") for table in add if doc_id in self.documents()])

    def mention(self, entity: int) -> None:
        """Find an entity in the first passage."""
        for row in self.rows("passages")[:1]:
            blank = {field.name: None if field.nullable else "" for field in MENTIONS}
            found = blank | {"passage_id": row["passage_id"], "doc_id": row["doc_id"], "entity": ENTITIES[entity]}
            self.change({"mentions": pa.Table.from_pylist([found], MENTIONS)})

    def remove(self, doc_id: str, *, withdrawn: bool) -> None:
        """Take a document out, and what is encoded of it alone, as ingest and delete do."""
        left = {row["text_hash"] for row in self.rows("passages") if row["doc_id"] != doc_id}
        tables = [name for name in self.at.versions if name.startswith(("encodings", "norms"))]
        stale = [
            (table, f"text_hash = '{row['text_hash']}'")
            for table in tables
            for row in self.rows(table)
            if row["text_hash"] not in left
        ]
        of_document = [(table, f"doc_id = '{doc_id}'") for table in ("documents", "passages", "mentions")]
        self.change({}, [*of_document, *stale], withdrawn=withdrawn)

    def encode(self, texts: Sequence[int]) -> None:
        """Encode texts, those again that were encoded before: not quite to the same vector."""
        keys = [TEXTS[text] for text in texts]
        vectors = self._draw.standard_normal((len(keys), DIM))
        unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        rows = pa.table(
            {
                "text_hash": pa.array(keys, pa.string()),
                "norm": self._draw.uniform(0.1, 30, len(keys)).astype(np.float32),
                "loss": np.ones(len(keys), np.float32),
                "n_tokens": np.ones(len(keys), np.int32),
                **codes_arrays(quantise(unit, self.codes())),
            }
        )
        tables = [name for name in self.at.versions if name.startswith("norms")] + ["encodings_e"]
        again = [(table, f"text_hash IN ({', '.join(map(repr, keys))})") for table in tables if self.at.has(table)]
        self.change({"encodings_e": rows}, again)

    def codes(self) -> str:
        with self.lake.catalog.read() as session:
            return session.get_one(models.Encoder, "e").codes

    def requantise(self, codes: str) -> None:
        with self.lake.catalog.read() as session:
            row = session.get_one(models.Encoder, "e")
        requantise(self.lake, row, codes)

    def sums(self, at: Snapshot, summed: Summed) -> GroupSums:
        if summed.curvature_id:
            fill_norms(self.lake, at, encoder="e", curvature_id=CURVATURE, norms_of=norms_of)
        return group_sums(self.lake, at, summed)

    def expected(self, at: Snapshot, summed: Summed) -> dict[tuple[str, str | None], tuple[int, np.ndarray, float]]:
        """Return for every group its passages, the sum of their vectors and that of the vectors' lengths."""
        table = self.lake.table("encodings_e", at=at).to_table().combine_chunks()
        unit = dequantise(read_codes(table)).astype(np.float64)
        factors = np.ones(len(unit))
        if summed.with_lengths:
            factors = table["norm"].to_numpy().astype(np.float64)
        elif summed.curvature_id:
            codes = "int8" if table.schema.field("codes").type.list_size == DIM else "int4"
            codes = "float16" if pa.types.is_float16(table.schema.field("codes").type.value_type) else codes
            stored = norms_table(CURVATURE, codes)
            norms = {row["text_hash"]: row["norm"] for row in (self.rows(stored) if self.at.has(stored) else [])}
            factors = np.array([1 / np.float64(np.float32(norms[key])) for key in table["text_hash"].to_pylist()])
        vectors = dict(zip(table["text_hash"].to_pylist(), unit * factors[:, None], strict=True))
        hidden = set(hidden_documents(self.lake.catalog, at).to_pylist())
        documents = {row["doc_id"]: row for row in self.rows("documents", at) if row["doc_id"] not in hidden}
        entities = defaultdict(set)
        for row in self.rows("mentions", at):
            entities[row["passage_id"]].add(row["entity"])
        groups: dict[tuple[str, str | None], list[np.ndarray]] = defaultdict(list)
        for passage in self.rows("passages", at):
            if passage["doc_id"] in documents and passage["text_hash"] in vectors:
                document = documents[passage["doc_id"]]
                month = document["published"] and document["published"].strftime(
                    "%Y-%m" if document["published_precision"] in ("day", "month") else "%Y"
                )
                names = {"all": [None], "corpus": [document["corpus"]], "source": [document["source"]]}
                names |= {"month": [month], "entity": sorted(entities[passage["passage_id"]])}
                for kind, of_kind in names.items():
                    for name in of_kind:
                        groups[kind, name].append(vectors[passage["text_hash"]])
        return {
            group: (len(of_group), np.sum(of_group, 0), float(np.linalg.norm(of_group, axis=1).sum()))
            for group, of_group in groups.items()
        }

    def check(self, at: Snapshot, summed: Summed, *, most: int = 10**6) -> None:
        """Assert that the sums of a snapshot are right, and those of the groups with most passages."""
        found, expected = self.sums(at, summed), self.expected(at, summed)
        for kind in GROUP_KINDS:
            of_kind, sums = found.kinds[kind], {name: one for (k, name), one in expected.items() if k == kind}
            assert found.n_groups[kind] == len(sums), kind
            ranked = sorted(sums, key=lambda name: (-sums[name][0], name is None, name or ""))
            assert list(of_kind.names) == ranked[: 1 if kind == "all" else most], kind
            for name, n, vector in zip(of_kind.names, of_kind.n_passages.tolist(), of_kind.sums, strict=True):
                assert n == sums[name][0], (kind, name)
                assert np.linalg.norm(vector - sums[name][1]) <= 1e-9 * sums[name][2], (kind, name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five documents, of which all texts but two are encoded."""
    root = tmp_path_factory.mktemp("made") / "lake"
    made = Corpus(root)
    for place in range(5):
        made.add([place, place + 1, 0], source=place, when=place, entities=[place % 4, (place + 1) % 4])
    made.encode([0, 1, 2, 3])
    made.lake.close()
    return root


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Iterator[Corpus]:
    """A copy of them, which a test may change."""
    shutil.copytree(made, tmp_path / "lake")
    copied = Corpus(tmp_path / "lake")
    yield copied
    copied.lake.close()


def refuse(*_args: Any, **_more: Any) -> Any:
    raise AssertionError


some_texts = st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=3)
a_document = st.fixed_dictionaries(
    {
        "texts": some_texts,
        "source": st.integers(0, len(SOURCES) - 1),
        "when": st.integers(0, len(DATES) - 1),
        "entities": st.lists(st.integers(0, len(ENTITIES) - 1), max_size=3),
    }
)
steps = st.one_of(
    st.tuples(st.just("add"), a_document),
    st.tuples(st.just("update"), a_document),
    st.tuples(st.just("remove"), st.booleans()),
    st.tuples(st.just("mention"), st.integers(0, len(ENTITIES) - 1)),
    st.tuples(st.just("encode"), some_texts),
    st.tuples(st.just("requantise"), st.sampled_from(["int8", "int4"])),
    st.tuples(st.just("compact"), st.booleans()),
)


def take(corpus: Corpus, what: str, how: Any) -> None:
    documents = corpus.documents()
    if what == "add":
        corpus.add(**how)
    elif what == "update" and documents:
        corpus.add(**how, doc_id=documents[how["source"] % len(documents)])
    elif what == "remove" and documents:
        corpus.remove(documents[0], withdrawn=how)
    elif what == "mention":
        corpus.mention(how)
    elif what == "encode":
        corpus.encode(sorted(set(how)))
    elif what == "requantise" and (how, corpus.codes()) in {("int8", "float16"), ("int4", "float16"), ("int4", "int8")}:
        corpus.requantise(how)
    elif what == "compact":
        compact(corpus.lake, forget=how)


# Examples take seconds, and shrinking one takes minutes.
UNSHRUNK = [Phase.explicit, Phase.generate]


@settings(max_examples=2, phases=UNSHRUNK)
@given(st.lists(steps, min_size=3, max_size=6), st.data())
def test_sums_are_those_of_all_passages_whatever_happens_to_them(
    tmp_path_factory: pytest.TempPathFactory, taken: list[tuple[str, Any]], data: st.DataObject
) -> None:
    change_and_check(tmp_path_factory, taken, data)


@pytest.mark.full
@settings(max_examples=100, phases=UNSHRUNK)
@given(st.lists(steps, min_size=3, max_size=9), st.data())
def test_sums_are_those_of_all_passages_whatever_else_happens_to_them(
    tmp_path_factory: pytest.TempPathFactory, taken: list[tuple[str, Any]], data: st.DataObject
) -> None:
    change_and_check(tmp_path_factory, taken, data)


def change_and_check(
    tmp_path_factory: pytest.TempPathFactory, taken: list[tuple[str, Any]], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("corpus")
    corpus = Corpus(root / "lake", codes="float16")
    for place in range(5):
        corpus.add([place, 5, 5, 6], source=place % 2, when=1, entities=[0, 1, 0])
    corpus.encode([0, 1, 2, 5, 6])
    for what, how in taken:
        take(corpus, what, how)
        for summed in data.draw(st.lists(st.sampled_from([UNIT, LENGTHS, UNDER]), max_size=2, unique_by=id)):
            corpus.check(corpus.at, summed)
            older = [one for one in readable_snapshots(corpus.lake.catalog) if one.has("encodings_e")]
            corpus.check(data.draw(st.sampled_from(older)), summed)
    corpus.lake.close()
    shutil.rmtree(root)


def test_only_what_changed_is_read(corpus: Corpus) -> None:
    read: list[int] = []
    group_sums(corpus.lake, corpus.at, UNIT, progress=read.append)
    assert sum(read) == 4  # texts, each once for all kinds of groups
    corpus.encode([4, 9])  # one of a single passage, one of none
    corpus.add([1], source=1, when=1, entities=[0])
    read.clear()
    group_sums(corpus.lake, corpus.at, UNIT, progress=read.append)
    assert sum(read) == 2
    corpus.check(corpus.at, UNIT)


def test_what_has_no_part_in_sums_does_not_make_them_anew(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.check(corpus.at, UNIT)
    corpus.change({"rejects": pa.Table.from_pylist([], REJECTS)}, [("hits", "rank < 0")])
    monkeypatch.setattr(module, "membership", refuse)
    monkeypatch.setattr(module, "lease", refuse)
    corpus.check(corpus.at, UNIT)


@pytest.mark.parametrize("most", [0, 2])
def test_the_budget_says_how_many_groups_have_a_sum(tmp_path: Path, most: int) -> None:
    corpus = Corpus(tmp_path / "lake", group_bytes=8 * DIM * most + 1)
    for place in range(4):
        corpus.add([place] * (place + 1), source=place, when=place, entities=[place, 0])
    corpus.encode([0, 1, 2, 3])
    corpus.check(corpus.at, UNIT, most=most)
    corpus.add([0, 1, 2, 3, 3, 3], source=0, when=0, entities=[1])  # groups that had none get theirs
    corpus.check(corpus.at, UNIT, most=most)
    corpus.lake.config = LakeConfig()
    corpus.check(corpus.at, UNIT)
    corpus.lake.close()


def test_a_budget_stands_in_the_lakes_settings(corpus: Corpus) -> None:
    settings_file = corpus.lake.root / "proponent.toml"
    written = settings_file.read_text("utf-8")
    for line, most in (("group_bytes = 1024", 2), ("group_bytes = 0", 0), ("", 1 << 17)):
        settings_file.write_text(f"{written}{line}\n", "utf-8")
        lake = open_store(corpus.lake.root)
        assert group_sums(lake, corpus.at, UNIT).most == most
        lake.close()
    for line in ("group_bytes = -1", "group_bytes = 99999999999", "group_bytes = 'all'"):
        settings_file.write_text(f"{written}{line}\n", "utf-8")
        with pytest.raises(DamagedLakeError, match=r"proponent\.toml"):
            open_store(corpus.lake.root)


def test_sums_that_changed_often_are_made_anew(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SUMMED_AGAIN", 3)
    summed = []
    for _ in range(4):
        corpus.add([1, 2, 3, 1, 2, 3], source=1, when=1, entities=[])
        corpus.check(corpus.at, LENGTHS)
        corpus.remove(sorted(corpus.documents())[-1], withdrawn=False)
        found = group_sums(corpus.lake, corpus.at, LENGTHS)
        summed.append(int(found.kinds["all"].n_summed[0]))
        assert all((of_kind.n_summed <= 3 * of_kind.n_passages).all() for of_kind in found.kinds.values())
    corpus.check(corpus.at, LENGTHS)
    n = int(found.kinds["all"].n_passages[0])
    assert max(summed) > n
    assert summed != sorted(summed)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_file_is_made_anew(corpus: Corpus, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    corpus.check(corpus.at, UNIT)
    (path,) = corpus.lake.sums_dir.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "flip":
        sums = load_sums(corpus.lake, UNIT, "int8")
        assert sums is not None
        place = bytes(data).index(sums.kinds["source"].sums.tobytes())
        data[place + 7] ^= 1
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b""}.get(damage, bytes(data)))
    caplog.clear()
    corpus.check(corpus.at, UNIT)
    assert "the sums are made anew" in caplog.text
    caplog.clear()
    corpus.check(corpus.at, UNIT)
    assert not caplog.text


def test_sums_of_a_state_that_is_gone_are_made_anew(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.check(corpus.at, UNIT)
    corpus.add([1, 2], source=2, when=2, entities=[1])
    for table in ("documents", "passages", "mentions", "encodings_e"):
        stored = load_sums(corpus.lake, UNIT, "int8")
        assert stored is not None
        gone = replace(stored, versions={**stored.versions, table: 999})
        monkeypatch.setattr(module, "load_sums", lambda *_args, gone=gone, **_more: gone)
        corpus.check(corpus.at, UNIT)
        monkeypatch.undo()


def test_sums_that_ended_half_written_are_no_sums(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.check(corpus.at, UNIT)
    (path,) = corpus.lake.sums_dir.iterdir()
    before = path.read_bytes()
    corpus.add([1, 2], source=2, when=2, entities=[1])

    def end(*_args: Any) -> None:
        raise KeyboardInterrupt

    for owner, step in ((place_module.os, "fsync"), (Path, "replace")):
        monkeypatch.setattr(owner, step, end)
        with pytest.raises(KeyboardInterrupt):
            group_sums(corpus.lake, corpus.at, UNIT)
        monkeypatch.undo()
        assert path.read_bytes() == before
    corpus.check(corpus.at, UNIT)


def test_a_process_that_is_killed_before_its_sums_are_in_place_changes_nothing(corpus: Corpus) -> None:
    corpus.check(corpus.at, UNIT)
    (path,) = corpus.lake.sums_dir.iterdir()
    before = path.read_bytes()
    corpus.add([1, 2], source=2, when=2, entities=[1])
    script = (
        "import os, sys, pathlib\n"
        "from proponent.query.group_sums import group_sums\n"
        "from proponent.store.group_sums import Summed\n"
        "from proponent.store.lake import open_store\n"
        "from proponent.store.snapshots import latest_snapshot\n"
        "lake = open_store(pathlib.Path(sys.argv[1]))\n"
        "pathlib.Path.replace = lambda *_: os._exit(9)\n"
        "group_sums(lake, latest_snapshot(lake.catalog), Summed('e', 64))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, corpus.lake.root], check=False)
    assert done.returncode == 9
    assert path.read_bytes() == before
    assert len(list(corpus.lake.sums_dir.iterdir())) == 2
    corpus.check(corpus.at, UNIT)  # at once, although the dead process had the lock
    compact(corpus.lake)
    assert list(corpus.lake.sums_dir.iterdir()) == [path]


def test_a_full_disk_costs_no_answer(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_sums", full)
    corpus.check(corpus.at, UNIT)
    assert "cannot be kept" in caplog.text
    assert "No space left on device" in caplog.text


def test_a_lake_that_cannot_be_written_is_answered_too(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.check(corpus.at, UNIT)
    corpus.add([1, 2], source=2, when=2, entities=[1])
    (path,) = corpus.lake.sums_dir.iterdir()
    before = path.read_bytes()

    def read_only(*_args: Any, **_more: Any) -> Any:
        raise CatalogError("attempt to write a readonly database")

    monkeypatch.setattr(module, "lease", read_only)
    corpus.check(corpus.at, UNIT)
    assert sums_of(corpus.lake, corpus.at, UNIT, by="corpus", names=["c0"]).n_passages[0] == 9
    assert path.read_bytes() == before


def test_one_process_at_a_time_works_on_an_encoders_sums(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "lease", lambda catalog, name: lease(catalog, name, wait_s=0))
    with lease(corpus.lake.catalog, "groups e"), pytest.raises(LakeBusyError, match="'groups e' is held by"):
        group_sums(corpus.lake, corpus.at, UNIT)
    corpus.check(corpus.at, UNIT)
    with lease(corpus.lake.catalog, "groups e"):
        corpus.check(corpus.at, UNIT)  # nothing is to be done


def test_several_at_once_find_the_same(corpus: Corpus) -> None:
    def find(_n: int) -> GroupSums:
        lake = open_store(corpus.lake.root)
        try:
            return group_sums(lake, latest_snapshot(lake.catalog), UNIT)
        finally:
            lake.close()

    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            found = list(pool.map(find, range(4)))
            assert all((one.kinds["source"].sums == found[0].kinds["source"].sums).all() for one in found)
            corpus.check(corpus.at, UNIT)
            corpus.add([3, 3], source=1, when=1, entities=[0])


def test_sums_of_an_older_snapshot_do_not_take_the_place_of_the_newest(corpus: Corpus) -> None:
    older = corpus.at
    corpus.check(older, UNIT)
    corpus.add([1, 2], source=2, when=2, entities=[1])
    corpus.check(corpus.at, UNIT)
    stored = load_sums(corpus.lake, UNIT, "int8")
    corpus.check(older, UNIT)
    again = load_sums(corpus.lake, UNIT, "int8")
    assert stored is not None
    assert again is not None
    assert stored.versions == again.versions


def test_withdrawn_documents_are_in_no_sum(corpus: Corpus) -> None:
    older = corpus.at
    corpus.check(older, UNIT)
    before = group_sums(corpus.lake, older, UNIT).kinds["all"].n_passages[0]
    corpus.remove("d2", withdrawn=True)
    for at in (older, corpus.at, older):
        corpus.check(at, UNIT)
        assert group_sums(corpus.lake, at, UNIT).kinds["all"].n_passages[0] == before - 3


def test_forgetting_takes_sums_along(corpus: Corpus) -> None:
    corpus.check(corpus.at, UNIT)
    compact(corpus.lake, forget=True)
    assert list(corpus.lake.sums_dir.iterdir())  # there was nothing to forget
    corpus.remove("d2", withdrawn=True)
    compact(corpus.lake, forget=True)
    assert not list(corpus.lake.sums_dir.iterdir())
    corpus.check(corpus.at, UNIT)


def test_groups_by_name_are_summed_with_or_without_a_kept_sum(corpus: Corpus) -> None:
    for by, names in (("entity", ["日本", "nobody"]), ("source", [None, "O'Reilly"]), ("month", ["2001", None])):
        found, expected = sums_of(corpus.lake, corpus.at, UNIT, by=by, names=names), corpus.expected(corpus.at, UNIT)
        for name, n, vector in zip(names, found.n_passages.tolist(), found.sums, strict=True):
            n_expected, sum_expected, lengths = expected.get((by, name), (0, np.zeros(DIM), 1.0))
            assert n == n_expected, name
            assert np.linalg.norm(vector - sum_expected) <= 1e-9 * lengths


def test_before_anything_is_encoded_there_are_no_sums(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "lake")
    with pytest.raises(NotFoundError, match="run `proponent encode`"):
        group_sums(corpus.lake, corpus.at, UNIT)
    corpus.encode([0])
    corpus.check(corpus.at, UNIT)  # no passage has the text
    corpus.add([0], source=0, when=0, entities=[])
    corpus.check(corpus.at, UNIT)
    corpus.lake.close()


def test_norms_that_are_not_there_are_not_left_out(corpus: Corpus) -> None:
    with pytest.raises(LakeBusyError, match="4 texts were encoded or taken out meanwhile"):
        group_sums(corpus.lake, corpus.at, UNDER)
    corpus.check(corpus.at, UNDER)
