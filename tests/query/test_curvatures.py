"""A task's curvature is fitted once, belongs to its queries, and decides the scores of the traces that name it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import proponent
from proponent.encode.curvature import fit_task
from proponent.lake import Lake
from proponent.query.session import Session
from proponent.query.trace import Question, trace
from proponent.schema import catalog as models
from proponent.schema.errors import EncodingError, NotFoundError, SettingsError
from proponent.schema.settings import EncoderSettings, TraceSettings
from proponent.store.codes import dequantise, read_codes
from proponent.store.snapshots import get_snapshot

SETTINGS = {"side": 8, "blocks": 1, "sample": 40}
GROUPS = 2
QUESTION = ("The capital of", " France")
TASK = [("The capital of", f" {place}") for place in ("France", "Peru", "Kenya", "Côte d'Ivoire", "日本")]


def write_corpus(path: Path, sentences: list[str], first: int = 0) -> Path:
    rows = [{"id": f"d{first + n}", "text": text} for n, text in enumerate(sentences)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_lake(folder: Path, checkpoint_dir: Path, sentences: list[str], *, moments: tuple[str, ...]) -> Lake:
    lake = proponent.init(folder / "lake")
    lake.add_model(checkpoint_dir, name="tiny")
    lake.ingest(write_corpus(folder / "corpus.jsonl", sentences), corpus="c")
    for kind in moments:
        lake.encode("tiny", encoder=kind, settings=EncoderSettings(moments=kind, **SETTINGS))
    return lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path, sentences: list[str]) -> Iterator[Lake]:
    """Sixty passages, with and without second moments, and a curvature of each."""
    folder = tmp_path_factory.mktemp("task")
    with make_lake(folder, checkpoint_dir, sentences, moments=("estimated", "none")) as lake:
        for encoder in ("estimated", "none"):
            lake.fit_curvature(TASK, name="capitals", encoder=encoder, query_set="capitals")
        yield lake


@pytest.fixture
def small(tmp_path: Path, checkpoint_dir: Path, sentences: list[str]) -> Iterator[Lake]:
    """A lake that a test may change: forty of the passages."""
    with make_lake(tmp_path, checkpoint_dir, sentences[:40], moments=("estimated",)) as lake:
        yield lake


def fitted(lake: Lake, name: str, encoder: str) -> dict[str, Any]:
    (row,) = lake.sql("SELECT * FROM curvatures WHERE name = ? AND encoder = ?", [name, encoder]).to_dicts()
    return row | {"diagnostics": json.loads(row["diagnostics"])}


def psi_of(lake: Lake, questions: list[tuple[str, str]], encoder: str) -> np.ndarray:
    """Trace questions and return their stored vectors, (q, d) float64."""
    lake.trace_all(questions, encoder=encoder, method="trackstar" if encoder == "estimated" else "logra")
    table = lake.store.table("queries", at=lake.snapshot).to_table(filter=f"encoder = '{encoder}'")
    vectors = dict(zip(table["query_id"].to_pylist(), table["vector"].to_pylist(), strict=True))
    ids = {(row.prompt, row.target): row.query_id for row in lake.sql("SELECT query_id, prompt, target FROM queries")}
    return np.array([vectors[ids[question]] for question in questions])


def inverse_of(lake: Lake, kind: str, encoder: str) -> np.ndarray:
    """Return R'^-1 (d, d) of a curvature: dense, from the task's vectors and lambda, or from the encoder's R0."""
    if kind == "identity":
        with lake.store.catalog.read() as session:
            row = session.get_one(models.Encoder, encoder)
        whitening = lake._encoders.encoder(row).whitening
        vectors = whitening.vectors.double()
        return torch.block_diag(*(vectors * whitening.values[:, None, :] @ vectors.transpose(1, 2))).numpy()
    psi = psi_of(lake, TASK, encoder).reshape(len(TASK), GROUPS, -1)
    mixing = fitted(lake, "capitals", encoder)["mixing"]
    moments = np.einsum("qgi,qgj->gij", psi, psi) / len(TASK)
    eye = np.eye(psi.shape[2])
    return torch.block_diag(
        *(torch.from_numpy(np.linalg.inv((1 - mixing) * eye + mixing * one)) for one in moments)
    ).numpy()


@pytest.mark.parametrize(
    ("method", "curvature", "encoder"),
    [
        ("trackstar", "capitals", "estimated"),
        ("trackstar", "identity", "estimated"),
        ("logra", "capitals", "none"),
        ("trak", "capitals", "none"),
        ("gradcos", None, "none"),
        ("graddot", None, "none"),
    ],
)
def test_scores_are_those_of_the_dense_curvature(lake: Lake, method: str, curvature: str | None, encoder: str) -> None:
    rows = lake.trace(*QUESTION, method=method, curvature=curvature, encoder=encoder, k=1000).to_dicts()
    assert {row["curvature"] for row in rows} == {curvature or "identity"}
    inverse = inverse_of(lake, curvature or "identity", encoder)
    (psi,) = psi_of(lake, [QUESTION], encoder)
    table = lake.store.table(f"encodings_{encoder}", at=lake.snapshot).to_table()
    unit = dequantise(read_codes(table)).astype(np.float64)
    scores = unit @ inverse @ psi
    if method in ("trak", "graddot"):
        scores *= table["norm"].to_numpy()
    else:
        scores /= np.sqrt(np.einsum("ni,ij,nj->n", unit, inverse, unit) * (psi @ inverse @ psi))
    by_text = dict(zip(table["text_hash"].to_pylist(), scores.tolist(), strict=True))
    passages = {row.passage_id: row.text_hash for row in lake.sql("SELECT passage_id, text_hash FROM passages")}
    assert len(rows) == len(passages)
    for row in rows:
        expected = by_text[passages[row["passage_id"]]]
        assert row["score"] == pytest.approx(expected, rel=1e-3, abs=1e-4 * np.abs(scores).max())


def test_a_mean_over_queries_is_the_mean_of_their_scores_under_a_curvature_too(lake: Lake) -> None:
    asked = [{"prompt": "The capital of", "target": " Peru", "instead": " France"}, TASK[2]]
    settings = {"encoder": "estimated", "curvature": "capitals", "k": 1000}
    scores = [
        {row["passage_id"]: row["score"] for row in lake.hits([trace_id]).to_dicts()}
        for trace_id in [*lake.trace_all(asked, **settings), *lake.trace_all(asked, average=True, **settings)]
    ]
    contrast, plain, mean = scores
    assert len(mean) == 60
    for passage, score in mean.items():
        assert score == pytest.approx((contrast[passage] + plain[passage]) / 2, rel=1e-3, abs=1e-6)


def test_a_fit_records_how_lambda_was_chosen(lake: Lake) -> None:
    row = fitted(lake, "capitals", "estimated")
    expected, found = fit_task(torch.tensor(psi_of(lake, TASK, "estimated")), n_groups=GROUPS)
    assert row["mixing"] == pytest.approx(expected.mixing)
    assert row["n_rows"] == row["diagnostics"]["queries"] == len(TASK)
    assert row["diagnostics"]["ranks"] == found["ranks"] == [5, 5]
    assert row["diagnostics"]["mixing_chosen"] == "rule"
    assert row["diagnostics"]["k"] == 2  # 1000 of 65,536 scaled to 128 components
    assert row["diagnostics"]["query_set"] == "capitals"
    assert (lake.store.artifacts_dir / row["artifact"]).is_file()
    [run] = lake.sql("SELECT status, counts->>'queries' AS n FROM runs WHERE kind = 'curvature' LIMIT 1")
    assert tuple(run) == ("done", "5")


def test_a_trace_records_its_curvature(lake: Lake) -> None:
    (trace_id,) = lake.trace_all([QUESTION], encoder="estimated", curvature="capitals")
    (row,) = lake.sql("SELECT curvature, settings FROM traces WHERE trace_id = ?", [trace_id]).to_dicts()
    task, reference = fitted(lake, "capitals", "estimated"), fitted(lake, "reference", "estimated")
    recorded = json.loads(row["settings"])["curvature"]
    assert row["curvature"] == recorded["name"] == "capitals"
    assert recorded["curvature_id"] == task["curvature_id"]
    assert recorded["mixing"] == task["mixing"]
    assert recorded["ranks"] == [5, 5]
    assert recorded["rho"] == reference["diagnostics"]["rho"]
    (plain,) = lake.trace_all([QUESTION], encoder="estimated")
    (named,) = lake.trace_all([QUESTION], encoder="estimated", curvature="reference")
    (none,) = lake.trace_all([QUESTION], encoder="estimated", curvature="identity")
    assert named == plain
    assert len({trace_id, plain, none}) == 3


def test_fitting_the_same_again_changes_nothing(lake: Lake) -> None:
    before = (lake.snapshot, len(lake.sql("FROM curvatures")))
    again = lake.fit_curvature(TASK[::-1], name="capitals", encoder="estimated", query_set="capitals")
    assert again["lambda"] == fitted(lake, "capitals", "estimated")["mixing"]
    assert (lake.snapshot, len(lake.sql("FROM curvatures"))) == before


@pytest.mark.parametrize("change", [{"questions": TASK[:4]}, {"questions": [*TASK, TASK[0]]}, {"mixing": 0.5}])
def test_a_name_belongs_to_its_queries_and_lambda(lake: Lake, change: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="fitted on other queries, or with another mixing; choose another name"):
        lake.fit_curvature(**{"questions": TASK, "name": "capitals", "encoder": "estimated"} | change)


def test_what_cannot_be_fitted_registers_nothing(lake: Lake) -> None:
    before = len(lake.sql("FROM curvatures"))
    for change, error in (
        ({"name": "reference"}, SettingsError),
        ({"name": "identity"}, SettingsError),
        ({"name": "Not a name"}, SettingsError),
        ({"mixing": 0.999}, SettingsError),
        ({"mixing": float("nan")}, SettingsError),
        ({"questions": []}, SettingsError),
        ({"questions": [*TASK, ("The capital of", None)]}, SettingsError),
        ({"questions": [("The capital", "")]}, EncodingError),
        ({"encoder": "missing"}, NotFoundError),
    ):
        with pytest.raises(error):
            lake.fit_curvature(**{"questions": TASK, "name": "new", "encoder": "estimated"} | change)
    assert len(lake.sql("FROM curvatures")) == before


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"method": "graddot", "curvature": "capitals", "encoder": "none"}, SettingsError, "takes no curvature"),
        ({"method": "gradcos", "curvature": "reference", "encoder": "none"}, SettingsError, "takes no curvature"),
        (
            {"curvature": "capitals", "approximate": True},
            NotFoundError,
            "has no index; build one with `proponent index`",
        ),
        ({"curvature": "currencies"}, NotFoundError, "only reference, capitals, identity; fit one with `proponent"),
    ],
)
def test_a_curvature_that_cannot_be_used_is_refused(
    lake: Lake, settings: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        lake.trace(*QUESTION, **{"encoder": "estimated"} | settings)


def test_lambda_zero_is_the_reference(lake: Lake) -> None:
    lake.fit_curvature(TASK, name="nothing", encoder="estimated", mixing=0)
    rows = lake.trace(*QUESTION, encoder="estimated", curvature="nothing", k=1000).to_dicts()
    plain = lake.trace(*QUESTION, encoder="estimated", k=1000).to_dicts()
    # Stored unit vectors have norm 1 up to their codes, by which only the norms of a curvature divide.
    scores = {row["passage_id"]: row["score"] for row in plain}
    for row in rows:
        assert row["score"] == pytest.approx(scores[row["passage_id"]], rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_queries_find_the_passage_that_is_the_question(lake: Lake, sentences: list[str], n: int) -> None:
    questions = [(text[:1], text[1:]) for text in sentences[7 : 7 + n]]
    found = lake.fit_curvature(questions, name=f"few{n}", encoder="estimated")
    assert 0 < found["lambda"] <= 0.99
    rows = lake.trace_all(questions, encoder="estimated", curvature=f"few{n}", k=1)
    first = [row["text"] for row in lake.hits(rows).to_dicts() if row["side"] == "proponent"]
    assert first == sentences[7 : 7 + n]


def test_passages_that_arrive_later_get_their_norms_with_the_next_trace(
    small: Lake, tmp_path: Path, sentences: list[str]
) -> None:
    fitted_on = small.fit_curvature(TASK, name="capitals")
    table = f"norms_{fitted(small, 'capitals', 'estimated')['curvature_id']}_int8"
    assert fitted_on["queries"] == 5
    assert small.status()["rows"][table] == 40
    before = small.trace(*QUESTION, curvature="capitals", k=1000).to_dicts()
    older = small.snapshot
    small.ingest(write_corpus(tmp_path / "more.jsonl", sentences[40:], first=40), corpus="c")
    assert small.encode(encoder="estimated", settings=EncoderSettings(moments="estimated", **SETTINGS)).encoded == 20
    assert small.status()["rows"][table] == 40
    after = small.trace(*QUESTION, curvature="capitals", k=1000).to_dicts()
    assert small.status()["rows"][table] == 60
    assert len(after) == 60
    scores = {row["passage_id"]: row["score"] for row in after}
    assert [scores[row["passage_id"]] for row in before] == [row["score"] for row in before]
    assert at_snapshot(small, older.snapshot_id) == [(row["passage_id"], row["score"]) for row in before]


def test_an_older_snapshot_than_the_curvature_can_be_traced_under_it(
    small: Lake, tmp_path: Path, sentences: list[str]
) -> None:
    older = small.snapshot
    small.ingest(write_corpus(tmp_path / "more.jsonl", sentences[40:], first=40), corpus="c")
    small.encode(encoder="estimated", settings=EncoderSettings(moments="estimated", **SETTINGS))
    small.fit_curvature(TASK, name="capitals")
    now = {row["passage_id"]: row["score"] for row in small.trace(*QUESTION, curvature="capitals", k=99).to_dicts()}
    then = at_snapshot(small, older.snapshot_id)
    assert len(then) == 40
    assert all(now[passage] == score for passage, score in then)


def at_snapshot(lake: Lake, snapshot_id: int) -> list[tuple[str, float]]:
    """Trace the question under `capitals` at a snapshot; return (passage, score), as `Lake.trace` orders them."""
    at = get_snapshot(lake.store.catalog, snapshot_id)
    with lake.store.catalog.read() as session:
        row = session.get_one(models.Encoder, "estimated")
    settings = TraceSettings(k=1000, curvature="capitals")
    with Session(lake.store, at, threads=1) as session:
        (trace_id,) = trace(
            lake.store,
            session,
            at,
            [Question(*QUESTION)],
            settings,
            encoder_row=row,
            encoder=lake._encoders.encoder(row),
        )
    return [(row["passage_id"], row["score"]) for row in lake.hits([trace_id]).to_dicts()]


def test_a_fit_that_was_cut_short_is_finished_by_fitting_again(small: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from proponent.query import curvatures

    def stopped(*_args: object, **_more: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(curvatures, "fill_norms", stopped)
        with pytest.raises(KeyboardInterrupt):
            small.fit_curvature(TASK, name="capitals")
    assert small.fit_curvature(TASK, name="capitals")["queries"] == 5
    assert len(small.sql("FROM curvatures WHERE name = 'capitals'")) == 1
    assert small.status()["rows"][f"norms_{fitted(small, 'capitals', 'estimated')['curvature_id']}_int8"] == 40


def test_a_curvature_may_be_fitted_before_anything_is_encoded(
    tmp_path: Path, checkpoint_dir: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_lake(tmp_path, checkpoint_dir, sentences[:40], moments=()) as lake:
        settings = EncoderSettings(moments="estimated", **SETTINGS)
        lake.encode(encoder="estimated", settings=settings, only="false")
        lake.fit_curvature(TASK, name="capitals")
        lake.encode(encoder="estimated", settings=settings)
        assert len(lake.trace(*QUESTION, curvature="capitals", k=99)) == 40


def test_a_report_says_what_a_curvature_is(lake: Lake, tmp_path: Path) -> None:
    task = lake.trace_all([QUESTION], encoder="estimated", curvature="capitals")
    none = lake.trace_all([QUESTION], encoder="none", method="gradcos")
    text = lake.report([*task, *none], tmp_path / "report.md").read_text("utf-8")
    assert f"capitals, fitted on 5 queries, lambda {fitted(lake, 'capitals', 'estimated')['mixing']:.3g} (rule)" in text
    assert "fitted on 0" not in text
