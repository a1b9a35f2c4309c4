"""Bringing group sums up to date: what changed since they were kept is added to them, and nothing else is read.

Notable: sums that are kept name the versions of the tables that they were made of; where those cannot be read any more
everything is made anew. Sums of an older snapshot are made of the kept ones in the same way, and are not kept.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa

from proponent.schema.errors import CatalogError, LakeError, NotFoundError
from proponent.schema.settings import GROUP_KINDS
from proponent.schema.tables import codes_of, encodings_table
from proponent.store.group_sums import GroupSums, KindSums, Summed, add_vectors, load_sums, save_sums
from proponent.store.lake import LakeStore
from proponent.store.leases import lease
from proponent.store.snapshots import Snapshot, latest_snapshot
from proponent.store.withdrawn import hidden_documents

from .members import Changed, Largest, Members, membership, versions_of

Progress = Callable[[int], object]

SUMMED_AGAIN: Final = 16
"""A sum that so many times its passages were added to or taken off is made from nothing: what rounding leaves behind
grows with all of them, and what it is compared with only with those that are left."""

_log = logging.getLogger(__name__)


def _ignore(_n: int) -> None:
    """Take no notice of progress."""


def group_sums(
    lake: LakeStore,
    at: Snapshot,
    summed: Summed,
    *,
    kinds: Sequence[str] = GROUP_KINDS,
    progress: Progress = _ignore,
) -> GroupSums:
    """Return the sums of a snapshot; those of the newest are kept, and brought up to date when they are asked for.

    `kinds` are those that have to be among them; kept ones of others are not read. `progress` is told how many vectors
    were read. Raises NotFoundError when nothing is encoded, LakeBusyError while another process works on the same
    encoder's sums.
    """
    table = encodings_table(summed.encoder)
    if not at.has(table):
        raise NotFoundError(f"encoder {summed.encoder!r} has encoded nothing yet; run `proponent encode`")
    codes, most = codes_of(lake.table(table, at=at).schema), lake.config.group_bytes // (8 * summed.dim)
    stored = load_sums(lake, summed, codes, kinds=kinds)
    if stored is not None and _is_current(lake, at, summed, stored, most):
        return stored
    with ExitStack() as held:
        may_keep = _lock(lake, summed, held)
        stored = load_sums(lake, summed, codes)  # which another process may have changed meanwhile
        if stored is not None and _is_current(lake, at, summed, stored, most):
            return stored
        present, hidden = replace(at, versions=versions_of(lake, at, summed)), hidden_documents(lake.catalog, at)
        base = None if stored is None else _Base(replace(at, versions=dict(stored.versions)), stored)
        made = _Update(lake, summed, present, hidden, most, base).made(progress)
        is_newest = present.versions == versions_of(lake, latest_snapshot(lake.catalog), summed)
        if may_keep and (is_newest or stored is None) and not len(hidden):
            _keep(lake, summed, codes, made)
    return made


def _lock(lake: LakeStore, summed: Summed, held: ExitStack) -> bool:
    """Keep others from the same work, and compaction from the files of former versions; return whether that is so.

    A catalog that cannot be written, on a disk for reading, say, is one that nobody compacts.
    """
    try:
        held.enter_context(lease(lake.catalog, f"groups {summed.encoder}"))
    except CatalogError as error:
        _log.info("group sums are not kept: %s", error)
        return False
    return True


def _keep(lake: LakeStore, summed: Summed, codes: str, made: GroupSums) -> None:
    try:
        save_sums(lake, summed, codes, made)
    except OSError as error:  # on a full disk, say; the answer does not depend on it
        _log.warning("group sums cannot be kept in %s: %s", lake.sums_dir, error.strerror or error)


def _is_current(lake: LakeStore, at: Snapshot, summed: Summed, stored: GroupSums, most: int) -> bool:
    same = stored.most == most and stored.versions == versions_of(lake, at, summed)
    return same and not len(hidden_documents(lake.catalog, at))


def sums_of(lake: LakeStore, at: Snapshot, summed: Summed, *, by: str, names: Sequence[str | None]) -> KindSums:
    """Return the sums of groups by their names, made of nothing but the snapshot."""
    present, hidden = replace(at, versions=versions_of(lake, at, summed)), hidden_documents(lake.catalog, at)
    with ExitStack() as held:
        _lock(lake, summed, held)
        members = held.enter_context(membership(lake, summed, present, hidden=hidden))
        changed = members.vectors(by, names)
        sums = np.zeros((len(names), summed.dim))
        _add(lake, summed, present, sums, changed)
    counts = changed.passages(len(names))
    return KindSums(names, counts, counts, sums)


@dataclass(frozen=True)
class _Base:
    """Sums that others are made of."""

    at: Snapshot
    sums: GroupSums


@dataclass(frozen=True)
class _Update:
    """Sums that are to be made."""

    lake: LakeStore
    summed: Summed
    present: Snapshot
    hidden: pa.Array
    most: int
    base: _Base | None

    def made(self, progress: Progress) -> GroupSums:
        """Return the sums, made from nothing where the tables of the base cannot be read."""
        try:
            return self._made(progress)
        except (LakeError, OSError, RuntimeError, pa.ArrowException) as error:  # Lance has several for damaged files
            if self.base is None:
                raise
            _log.info("group sums are made anew: %s", error)
            return replace(self, base=None)._made(progress)

    def _made(self, progress: Progress) -> GroupSums:
        with membership(self.lake, self.summed, self.present, hidden=self.hidden) as members:
            if self.base:
                members.compare(self.base.at, self.base.sums.sizes)
            else:
                members.count()
            largest = {kind: members.largest(kind, 1 if kind == "all" else self.most) for kind in GROUP_KINDS}
            ends = np.cumsum([len(of_kind.names) for of_kind in largest.values()]).tolist()
            # All kinds in one array, so that a vector is read once for all of them.
            sums = np.zeros((ends[-1], self.summed.dim))
            kinds, moved = {}, []
            for (kind, of_kind), end in zip(largest.items(), ends, strict=True):
                first = end - len(of_kind.names)
                kinds[kind], changed = self._begun(members, kind, of_kind, sums[first:end])
                moved.append(changed._replace(numbers=changed.numbers + first))
            sizes = members.sizes()
        everything = Changed(*map(np.concatenate, zip(*moved, strict=True)))
        _add(self.lake, self.summed, self.present, sums, everything.only(everything.n > 0), progress=progress)
        if self.base:
            gone = everything.only(everything.n < 0)
            _add(self.lake, self.summed, self.base.at, sums, gone, progress=progress)
        n_groups = {kind: of_kind.n_groups for kind, of_kind in largest.items()}
        return GroupSums(kinds, n_groups, self.present.versions, self.most, sizes)

    def _begun(self, members: Members, kind: str, largest: Largest, sums: np.ndarray) -> tuple[KindSums, Changed]:
        """Put the sums of a kind that can be built on into an array; return them, and what has to be added."""
        n = len(largest.names)
        if self.base is None:
            changed = members.vectors(kind, largest.names)
            return KindSums(largest.names, largest.n_passages, changed.moves(n), sums), changed
        stored = self.base.sums.kinds[kind]
        places = {name: place for place, name in enumerate(stored.names)}
        place = np.array([places.get(name, -1) for name in largest.names], np.int64)
        changed = members.changes(kind, largest.names)
        n_summed = changed.moves(n)
        n_summed[place >= 0] += stored.n_summed[place[place >= 0]]
        # It is less work, too, to add up what there is than to take off what has gone.
        again = (changed.moves(n) >= largest.n_passages) | (n_summed > SUMMED_AGAIN * largest.n_passages)
        again |= place < 0
        again &= changed.passages(n) < largest.n_passages  # the others are new, and all that they have has just come
        kept = ~again & (place >= 0)
        sums[kept] = stored.sums[place[kept]]
        if again.any():
            numbers = np.flatnonzero(again)
            anew = members.vectors(kind, [largest.names[number] for number in numbers.tolist()])
            anew = anew._replace(numbers=numbers[anew.numbers])
            changed = Changed(*map(np.concatenate, zip(changed.only(~again[changed.numbers]), anew, strict=True)))
            n_summed[again] = largest.n_passages[again]
        return KindSums(largest.names, largest.n_passages, n_summed, sums), changed


def _add(
    lake: LakeStore, summed: Summed, at: Snapshot, sums: np.ndarray, changed: Changed, *, progress: Progress = _ignore
) -> None:
    encodings = lake.table(encodings_table(summed.encoder), at=at)
    factors = changed.n * changed.factors
    add_vectors(
        sums, encodings, numbers=changed.numbers, positions=changed.positions, factors=factors, progress=progress
    )
