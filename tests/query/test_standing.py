"""Mean and spread are those of the first texts by hash, and a percentile is one of the candidates, however few."""

import numpy as np
import pytest

from proponent.encode.methods import METHODS
from proponent.query import standing as module
from proponent.query.memo import Memo
from proponent.query.search import Candidates, ScoredPassage, find_candidates, passing
from proponent.query.session import Session
from proponent.query.standing import Standing, standings
from proponent.store.codes import dequantise, read_codes
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot

DIM = 64


def vectors(n: int) -> np.ndarray:
    drawn = np.random.default_rng(7).standard_normal((n, DIM)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def stand(
    session: Session,
    lake: LakeStore,
    queries: np.ndarray,
    *,
    method: str = "trackstar",
    among: Candidates | None = None,
) -> list[Standing]:
    session.memo = Memo()
    unit_norm = METHODS[method].unit_norm
    return standings(lake, session, session.at, queries, encoder="e", unit_norm=unit_norm, norms=None, among=among)


def direct(lake: LakeStore, at: Snapshot, query: np.ndarray, *, unit_norm: bool) -> dict[str, float]:
    rows = lake.table("encodings_e", at=at).to_table()
    scores = dequantise(read_codes(rows)) @ query
    if not unit_norm:
        scores = scores * rows["norm"].to_numpy()
    return dict(zip(rows["text_hash"].to_pylist(), scores.tolist(), strict=True))


@pytest.mark.parametrize("method", ["trackstar", "trak"])
@pytest.mark.parametrize("sampled", [1000, 20, 1])
def test_mean_and_spread_are_those_of_the_first_texts(
    filled: LakeStore, session: Session, at: Snapshot, method: str, sampled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAMPLED", sampled)
    queries = vectors(3)
    for query, found in zip(queries, stand(session, filled, queries, method=method), strict=True):
        scores = direct(filled, at, query, unit_norm=method == "trackstar")
        drawn = [scores[key] for key in sorted(scores)[:sampled]]
        assert found.n == len(drawn) == min(sampled, len(scores))
        assert found.mean == pytest.approx(np.mean(drawn), rel=1e-4, abs=1e-6)
        if sampled == 1:
            assert (found.sd, found.z_score(1.0)) == (None, None)
        else:
            assert found.sd == pytest.approx(np.std(drawn, ddof=1), rel=1e-4)
            assert found.z_score(found.mean + 2 * found.sd) == pytest.approx(2)


def test_a_query_that_nothing_resembles_has_no_z_score(filled: LakeStore, session: Session) -> None:
    (found,) = stand(session, filled, np.zeros((1, DIM), np.float32))
    assert (found.mean, found.sd, found.z_score(0.5)) == (0, None, None)


@pytest.mark.parametrize("where", [None, "ordinal = 1", "source = 'news'"])
def test_a_percentile_of_all_candidates_is_that_of_the_exact_search(
    filled: LakeStore, session: Session, at: Snapshot, where: str | None
) -> None:
    candidates = find_candidates(filled, session, at, encoder="e", where=where)
    query = vectors(1)
    (found,) = stand(session, filled, query, among=candidates)
    scores = direct(filled, at, query[0], unit_norm=True)
    of_each = np.array([scores[text] for text in passing(session, where)["text_hash"].to_pylist() if text in scores])
    for score in (-1.0, 0.0, 0.01, 1.0):
        assert found.percentile(score) == pytest.approx(100 * np.mean(of_each < score))
    assert found.placed(ScoredPassage("p", 1, 1.0, None)).percentile == 100


def test_above_a_sample_nothing_is_above_everything(
    filled: LakeStore, session: Session, at: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAMPLED", 20)
    candidates = find_candidates(filled, session, at, encoder="e", where="ordinal <> 1")
    (found,) = stand(session, filled, vectors(1), among=candidates)
    assert len(candidates) > 20
    assert found.percentile(1.0) == pytest.approx(100 * 20 / 21)
    assert found.percentile(-1.0) == 0
