"""What is kept is what would be made anew, and no more of it than there is room for."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from proponent.query.memo import Memo
from proponent.query.search import find_candidates
from proponent.query.session import Session
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot, get_snapshot


def test_the_latest_stay_as_long_as_there_is_room() -> None:
    memo, made = Memo(100), list[str]()

    def get(key: str, n_bytes: int = 40) -> None:
        def make() -> pa.Array:
            made.append(key)
            return pa.array([0] * n_bytes, pa.int8())

        assert len(memo.get(key, make)) == n_bytes

    for key in ("a", "b", "a", "c", "a", "b"):
        get(key)
    assert made == ["a", "b", "c", "b"]
    get("large", 101)
    get("large", 101)
    assert made[-2:] == ["large", "large"]


def test_who_waited_for_what_was_stopped_makes_it() -> None:
    memo, begun, stop = Memo(), threading.Event(), threading.Event()

    def stopped() -> pa.Array:
        begun.set()
        stop.wait(60)
        raise InterruptedError

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(memo.get, "a", stopped)
        assert begun.wait(60)
        second = pool.submit(memo.get, "a", lambda: pa.array([1]))
        stop.set()
        assert second.result(60).to_pylist() == [1]
        assert isinstance(first.exception(60), InterruptedError)


def test_what_is_made_under_one_key_keeps_nobody_from_another() -> None:
    memo, begun, go_on = Memo(), threading.Event(), threading.Event()

    def slow() -> pa.Array:
        begun.set()
        assert go_on.wait(60)
        return pa.array([1])

    with ThreadPoolExecutor(2) as pool:
        waits = pool.submit(memo.get, "slow", slow)
        assert begun.wait(60)
        assert pool.submit(memo.get, "quick", lambda: pa.array([2])).result(60).to_pylist() == [2]
        go_on.set()
        assert waits.result(60).to_pylist() == [1]


def test_candidates_are_kept_for_their_filter_encoder_and_versions(filled: LakeStore, at: Snapshot) -> None:
    memo, found = Memo(), []
    for _ in range(2):
        with Session(filled, at, threads=1, memo=memo) as session:
            found += [
                find_candidates(filled, session, at, encoder=encoder, where=where)
                for encoder in ("e", "by_text")
                for where in (None, "ordinal = 0", "ordinal = 1")
            ]
    assert [one is other for one, other in zip(found[:6], found[6:], strict=True)] == [True] * 6
    assert len({id(one) for one in found}) == 6
    earlier = get_snapshot(filled.catalog, 1)
    with Session(filled, earlier, threads=1, memo=memo) as session:
        versions = {**earlier.versions, "encodings_e": at.versions["encodings_e"]}
        before = Snapshot(1, versions, earlier.run_id, earlier.created_at)
        assert len(find_candidates(filled, session, before, encoder="e", where=None)) == 0
