"""Locks that outlive no process: rows of the catalog with an expiry, renewed by a heartbeat.

Notable: a lock of a dead process on this machine is taken over at once, so that starting again after a crash does not
wait; a lock of another machine is taken over when it expires. Every take-over draws a new token, and whoever writes
under a lock proves with `Lease.confirm` that the token is still its own. The lock ALONE is had only while nobody holds
any other, and as long as it is held nobody gets one.
"""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Final

import psutil
from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from proponent.observe.events import count, tell
from proponent.schema.catalog import Lock, Unit, now
from proponent.schema.errors import CatalogError, LakeBusyError, LeaseLostError
from proponent.schema.ids import fresh_id

from .catalog import Catalog

TTL = timedelta(seconds=60)
"""How long a lock lives without a heartbeat."""
ALONE: Final = "compact"
"""The lock of who removes files: nobody else writes at that time, a file that no version names yet included."""

held_here: Final[set[str]] = set()
"""Tokens that this process holds. A lock of this process whose token is not among them is left over from an attempt to
release it that failed, on a full disk, say."""

_log = logging.getLogger(__name__)


class Lease:
    """A lock that this process holds."""

    def __init__(self, catalog: Catalog, name: str, token: str) -> None:
        self.token = token
        self._catalog = catalog
        self._name = name

    def renew(self) -> None:
        """Put off the expiry. Raises LeaseLostError when somebody else has taken the lock."""
        with self._catalog.write() as session:
            self.confirm(session)

    def confirm(self, session: Session) -> None:
        """Renew the lock inside a transaction, which fails with LeaseLostError if the lock is no longer held."""
        mine = update(Lock).where(Lock.name == self._name, Lock.token == self.token)
        if session.connection().execute(mine.values(expires_at=now() + TTL)).rowcount != 1:
            tell(_log, "late commit refused", level=logging.WARNING, lock=self._name)
            count("refusals", what="lock")
            raise LeaseLostError(f"lock {self._name!r} was taken over by another process; nothing was published")

    def release(self) -> None:
        """Give the lock up, if it is still held."""
        with self._catalog.write() as session:
            held = session.get(Lock, self._name)
            if held and held.token == self.token:
                session.delete(held)


@contextmanager
def lease(catalog: Catalog, name: str, *, wait_s: float = 120.0, under: Sequence[Lease] = ()) -> Iterator[Lease]:
    """Hold a lock for the length of a with block.

    `under` are locks that are held already: who holds ALONE gets others under it. Raises LakeBusyError when a live
    process still holds it after `wait_s` seconds.
    """
    held = _acquire(catalog, name, wait_s, {one.token for one in under})
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(held, stop), name=f"lease-{name}", daemon=True)
    heart.start()
    try:
        yield held
    finally:
        try:
            stop.set()
            heart.join()
            held.release()
        finally:
            held_here.discard(held.token)


def _acquire(catalog: Catalog, name: str, wait_s: float, mine: set[str]) -> Lease:
    deadline = time.monotonic() + wait_s
    token = fresh_id()
    while True:
        holder: Lease | Lock | None = None
        try:
            held_here.add(token)
            holder = _try_acquire(catalog, name, token, mine)
        finally:
            if not isinstance(holder, Lease):
                held_here.discard(token)
        if isinstance(holder, Lease):
            return holder
        if time.monotonic() > deadline:
            raise LakeBusyError(
                f"lock {holder.name!r} is held by process {holder.pid} on {holder.host}; "
                "wait for it or stop it, then try again"
            )
        time.sleep(0.1)


def _try_acquire(catalog: Catalog, name: str, token: str, mine: set[str]) -> Lease | Lock:
    wanted = Lock(
        name=name,
        token=token,
        host=this_machine(),
        pid=os.getpid(),
        process_start=process_start(os.getpid()),
        expires_at=now() + TTL,
    )
    try:
        with catalog.write() as session:
            if session.connection().dialect.name == "postgresql":  # where a lock that is being taken cannot be seen
                session.execute(text("LOCK TABLE locks IN SHARE ROW EXCLUSIVE MODE"))
            rivals = select(Lock) if name == ALONE else select(Lock).where(Lock.name.in_([name, ALONE]))
            for held in session.scalars(rivals.with_for_update()).all():
                if held.token not in mine and is_alive(held):
                    return held
                if held.name == name:
                    machine = held.host.partition("/")[0]
                    tell(_log, "lock taken over from a dead holder", lock=name, from_machine=machine, from_pid=held.pid)
                    count("takeovers", what="lock")
            session.merge(wanted)
    except IntegrityError:  # another process inserted the row between our look and our insert
        with catalog.read() as session:
            return session.get(Lock, name) or wanted
    return Lease(catalog, name, token)


def is_alive(held: Lock | Unit) -> bool:
    """Whether a holder lives: seen at once on this machine, by its expiry on another."""
    if held.pid is None or held.expires_at is None:
        return False
    if held.host == this_machine():
        is_this_process = held.pid == os.getpid()
        return process_start(held.pid) == held.process_start and (held.token in held_here or not is_this_process)
    return held.expires_at > now()


@cache
def this_machine() -> str:
    """Return a name of where process ids mean the same: the host, since its last start, in one container."""
    name = socket.gethostname()
    if sys.platform != "linux":
        return name
    booted = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{name}/{booted}/{os.readlink('/proc/self/ns/pid')}"


def process_start(pid: int) -> str:
    """Return when a process began, on a clock that nobody sets; empty when it is gone."""
    try:
        if sys.platform != "linux":
            return str(psutil.Process(pid).create_time())
        # In ticks since the machine started; the command before it, in brackets, may hold anything.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (psutil.Error, OSError):
        return ""


def _beat(held: Lease, stop: threading.Event) -> None:
    while not stop.wait(TTL.total_seconds() / 4):
        try:
            held.renew()
        except LeaseLostError as error:
            _log.warning("%s", error)
            return
        except CatalogError as error:  # busy or away; `confirm` decides before anything is published
            _log.warning("could not renew a lock: %s", error)
