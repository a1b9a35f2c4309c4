"""A lock has one holder; the holder that is gone, or was held for gone, never writes again."""

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from proponent.schema.catalog import Lock, now
from proponent.schema.errors import CatalogError, LakeBusyError, LeaseLostError
from proponent.store import leases
from proponent.store.lake import LakeStore
from proponent.store.leases import ALONE, Lease, lease, process_start, this_machine

HOLD = """
import sys, time
from pathlib import Path
from proponent.store.lake import open_store
from proponent.store.leases import lease, process_start, this_machine
with lease(open_store(Path(sys.argv[1])).catalog, "commit"):
    print("held", flush=True)
    sys.stdin.readline()
"""
COUNT = """
import sys
from pathlib import Path
from proponent.store.lake import open_store
from proponent.store.leases import lease, process_start, this_machine
catalog, file = open_store(Path(sys.argv[1])).catalog, Path(sys.argv[2])
for _ in range(10):
    with lease(catalog, "count"):
        file.write_text(str(int(file.read_text()) + 1))
"""


def holder(lake: LakeStore, name: str = "commit") -> Lock | None:
    with lake.catalog.read() as session:
        return session.get(Lock, name)


def hold(lake: LakeStore, **changes: Any) -> None:
    given = {"name": "commit", "token": "theirs", "host": this_machine(), "pid": os.getpid()}
    given |= {"process_start": process_start(os.getpid()), "expires_at": now() + timedelta(seconds=60)}
    with lake.catalog.write() as session:
        session.merge(Lock(**given | changes))


@pytest.fixture
def held_elsewhere(lake: LakeStore, start_python: Any) -> Iterator[Any]:
    process = start_python(HOLD, lake.root)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_there_while_it_is_held_and_gone_afterwards(lake: LakeStore) -> None:
    with lease(lake.catalog, "commit") as held:
        row = holder(lake)
        assert row is not None
        assert (row.host, row.pid) == (this_machine(), os.getpid())
        held.renew()
    assert holder(lake) is None


def test_a_lock_is_given_up_when_the_body_fails(lake: LakeStore) -> None:
    with pytest.raises(KeyError), lease(lake.catalog, "commit"):
        raise KeyError
    assert holder(lake) is None


def test_locks_of_different_names_do_not_meet(lake: LakeStore) -> None:
    with lease(lake.catalog, "one"), lease(lake.catalog, "two", wait_s=0):
        assert holder(lake, "one") is not None
        assert holder(lake, "two") is not None


def test_who_wants_to_be_alone_waits_for_everybody(lake: LakeStore) -> None:
    with lease(lake.catalog, "ingest c"):
        with pytest.raises(LakeBusyError, match="lock 'ingest c' is held"), lease(lake.catalog, ALONE, wait_s=0.1):
            pytest.fail("somebody else was there")
        assert holder(lake, ALONE) is None, "waiting keeps nobody out"
    with lease(lake.catalog, ALONE):
        pass


def test_nobody_comes_to_who_is_alone_but_those_it_lets_in(lake: LakeStore) -> None:
    with lease(lake.catalog, ALONE) as held:
        with pytest.raises(LakeBusyError, match="lock 'compact' is held"), lease(lake.catalog, "ingest c", wait_s=0.1):
            pytest.fail("somebody else came")
        with lease(lake.catalog, "commit", under=[held]):
            assert holder(lake) is not None
    with lease(lake.catalog, "ingest c"):
        pass


def test_who_died_alone_keeps_nobody_out(lake: LakeStore) -> None:
    hold(lake, name=ALONE, pid=2**22 + 1)
    with lease(lake.catalog, "ingest c", wait_s=0.1), lease(lake.catalog, "commit", wait_s=0.1):
        pass
    with lease(lake.catalog, ALONE, wait_s=0.1):
        pass


def test_a_renewal_puts_off_the_expiry(lake: LakeStore) -> None:
    with lease(lake.catalog, "commit") as held:
        before = holder(lake)
        time.sleep(0.01)
        held.renew()
        after = holder(lake)
    assert before is not None
    assert after is not None
    assert after.expires_at > before.expires_at


def test_the_heartbeat_renews_a_lock_that_is_held_long(lake: LakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "TTL", timedelta(seconds=0.4))
    with lease(lake.catalog, "commit"):
        first = holder(lake)
        assert first is not None
        renewed = False
        for _ in range(400):
            row = holder(lake)
            assert row is not None
            if renewed := row.expires_at > first.expires_at:
                break
            time.sleep(0.05)
        assert renewed


def test_a_lock_of_a_live_process_is_waited_for_and_then_refused(lake: LakeStore, held_elsewhere: Any) -> None:
    began = time.monotonic()
    with (
        pytest.raises(LakeBusyError, match=f"held by process {held_elsewhere.pid} on") as caught,
        lease(lake.catalog, "commit", wait_s=0.5),
    ):
        pass
    assert 0.5 < time.monotonic() - began < 5
    assert isinstance(caught.value, TimeoutError)
    assert "\n" not in str(caught.value)


def test_a_lock_of_a_live_process_is_not_taken_even_when_it_expired(lake: LakeStore) -> None:
    parent = os.getppid()
    hold(lake, pid=parent, process_start=process_start(parent), expires_at=now() - timedelta(hours=1))
    with pytest.raises(LakeBusyError), lease(lake.catalog, "commit", wait_s=0):
        pass


def test_a_lock_that_this_process_could_not_release_is_taken_back(
    lake: LakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(_lease: Lease) -> None:
        raise CatalogError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Lease, "release", full_disk)
        with pytest.raises(CatalogError), lease(lake.catalog, "commit"):
            pass
    assert holder(lake) is not None
    with lease(lake.catalog, "commit", wait_s=0):
        pass
    assert holder(lake) is None


def test_a_lock_is_had_as_soon_as_its_holder_is_done(lake: LakeStore, held_elsewhere: Any) -> None:
    held_elsewhere.stdin.write("\n")
    held_elsewhere.stdin.flush()
    with lease(lake.catalog, "commit", wait_s=10):
        assert holder(lake) is not None


def test_a_lock_of_a_killed_process_is_taken_at_once(lake: LakeStore, held_elsewhere: Any) -> None:
    held_elsewhere.kill()
    held_elsewhere.wait()
    began = time.monotonic()
    with lease(lake.catalog, "commit", wait_s=0):
        assert time.monotonic() - began < 1


def test_a_lock_of_a_process_whose_pid_was_reused_is_taken_at_once(lake: LakeStore) -> None:
    hold(lake, process_start="1")
    with lease(lake.catalog, "commit", wait_s=0):
        pass


def test_a_lock_of_another_machine_is_respected_until_it_expires(lake: LakeStore) -> None:
    hold(lake, host="elsewhere.example", pid=1, process_start="1")
    with (
        pytest.raises(LakeBusyError, match=r"process 1 on elsewhere\.example"),
        lease(lake.catalog, "commit", wait_s=0),
    ):
        pass
    hold(lake, host="elsewhere.example", expires_at=now() + timedelta(seconds=0.5))
    with lease(lake.catalog, "commit", wait_s=5):
        row = holder(lake)
        assert row is not None
        assert row.host == this_machine()


def test_whoever_lost_a_lock_cannot_renew_it_and_leaves_it_to_the_new_holder(lake: LakeStore) -> None:
    with lease(lake.catalog, "commit") as held:
        hold(lake)
        with pytest.raises(LeaseLostError, match="taken over by another process"):
            held.renew()
        with lake.catalog.write() as session, pytest.raises(LeaseLostError):
            held.confirm(session)
    row = holder(lake)
    assert row is not None
    assert row.token == "theirs"


def test_a_heartbeat_that_finds_its_lock_lost_stops(lake: LakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "TTL", timedelta(seconds=0.2))
    with lease(lake.catalog, "commit"):
        hold(lake, expires_at=now() + timedelta(hours=1))
        time.sleep(0.3)
        row = holder(lake)
    assert row is not None
    assert row.expires_at > now() + timedelta(minutes=30)


def test_only_one_process_at_a_time_is_inside(lake: LakeStore, start_python: Any, tmp_path: Any) -> None:
    (tmp_path / "count").write_text("0")
    children = [start_python(COUNT, lake.root, tmp_path / "count") for _ in range(3)]
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
    assert (tmp_path / "count").read_text() == "30"
