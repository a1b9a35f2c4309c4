"""Bringing group sums up to date: what changed since they were kept is added to them, and nothing else is read.

Notable: sums that are kept name the versions of the tables that they were made of; where those cannot be read any more
everything is made anew. Sums of an older snapshot are made of the kept ones in the same way, and are not kept.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa

from proponent.schema.errors import LakeError, NotFoundError
from proponent.schema.settings import GROUP_KINDS
from proponent.schema.tables import codes_of, encodings_table
from proponent.store.group_sums import GroupSums, KindSums, Summed, add_vectors, load_sums, save_sums
from proponent.store.lake import LakeStore
from proponent.store.leases import lease
from proponent.store.snapshots import Snapshot, latest_snapshot
from proponent.store.withdrawn import hidden_documents

from .members import Changed, Members, Sizes, membership, versions_of

Progress = Callable[[int], object]

SUMMED_AGAIN: Final = 16
"""A sum that so many times its passages were added to or taken off is made from nothing: what rounding leaves behind
grows with all of them, and what it is compared with only with those that are left."""


def _ignore(_n: int) -> None:
    """Take no notice of progress."""


_log = logging.getLogger(__name__)


def group_sums(lake: LakeStore, at: Snapshot, summed: Summed, *, progress: Progress = _ignore) -> GroupSums:
    """Return the sums of a snapshot; those of the newest are kept, and brought up to date when they are asked for.

    `progress` is told how many vectors were read. Raises NotFoundError when nothing is encoded, LakeBusyError while
    another process works on the same encoder's sums.
    """
    table = encodings_table(summed.encoder)
    if not at.has(table):
        raise NotFoundError(f"encoder {summed.encoder!r} has encoded nothing yet; run `proponent encode`")
    codes, most = codes_of(lake.table(table, at=at).schema), lake.config.group_bytes // (8 * summed.dim)
    stored = load_sums(lake, summed, codes)
    if stored is not None and _is_current(lake, at, summed, stored, most):
        return stored
    # Compaction, which removes the files of former versions, does not run beside this either.
    with lease(lake.catalog, f"groups {summed.encoder}"):
        stored = load_sums(lake, summed, codes)
        if stored is not None and _is_current(lake, at, summed, stored, most):
            return stored
        present, hidden = replace(at, versions=versions_of(lake, at, summed)), hidden_documents(lake.catalog, at)
        base = None if stored is None else _Base(replace(at, versions=dict(stored.versions)), stored)
        update = _Update(lake, summed, present, hidden, most, base)
        made = update.made(progress)
        is_newest = present.versions == versions_of(lake, latest_snapshot(lake.catalog), summed)
        if (is_newest or stored is None) and not len(hidden):
            try:
                save_sums(lake, summed, codes, made)
            except OSError as error:  # on a full disk, say; the answer does not depend on it
                _log.warning("group sums cannot be kept in %s: %s", lake.sums_dir, error.strerror)
    return made


def _is_current(lake: LakeStore, at: Snapshot, summed: Summed, stored: GroupSums, most: int) -> bool:
    same = stored.most == most and stored.versions == versions_of(lake, at, summed)
    return same and not len(hidden_documents(lake.catalog, at))


def sums_of(lake: LakeStore, at: Snapshot, summed: Summed, *, by: str, names: Sequence[str | None]) -> KindSums:
    """Return the sums of groups by their names, made of nothing but the snapshot."""
    present, hidden = replace(at, versions=versions_of(lake, at, summed)), hidden_documents(lake.catalog, at)
    with (
        lease(lake.catalog, f"groups {summed.encoder}"),
        membership(lake, summed, present, hidden=hidden, former=None) as members,
    ):
        changed = members.changes(by, names, np.zeros(len(names), bool))
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
        except (LakeError, OSError) as error:
            if self.base is None:
                raise
            _log.info("group sums are made anew: %s", error)
            return replace(self, base=None)._made(progress)

    def _made(self, progress: Progress) -> GroupSums:
        former = self.base.at if self.base else None
        with membership(self.lake, self.summed, self.present, hidden=self.hidden, former=former) as members:
            sizes = {kind: members.largest(kind, 1 if kind == "all" else self.most) for kind in GROUP_KINDS}
            ends = np.cumsum([len(of_kind.names) for of_kind in sizes.values()]).tolist()
            # All kinds in one array, so that a vector is read once for all of them.
            sums = np.zeros((ends[-1], self.summed.dim))
            kinds, moved = {}, []
            for (kind, of_kind), end in zip(sizes.items(), ends, strict=True):
                first = end - len(of_kind.names)
                kinds[kind], changed = self._begun(members, kind, of_kind, sums[first:end])
                moved.append(changed._replace(numbers=changed.numbers + first))
        everything = Changed(*map(np.concatenate, zip(*moved, strict=True)))
        _add(self.lake, self.summed, self.present, sums, everything.only(everything.n > 0), progress=progress)
        if former is not None:
            _add(self.lake, self.summed, former, sums, everything.only(everything.n < 0), progress=progress)
        n_groups = {kind: of_kind.n_groups for kind, of_kind in sizes.items()}
        return GroupSums(kinds, n_groups, self.present.versions, self.most)

    def _begun(self, members: Members, kind: str, sizes: Sizes, sums: np.ndarray) -> tuple[KindSums, Changed]:
        """Put the sums of a kind that can be built on into an array; return them, and what has to be added."""
        stored = self.base.sums.kinds[kind] if self.base else None
        kept, changed = _kept(members, kind, sizes, stored)
        n_summed = changed.moves(len(sizes.names))
        for number, place in kept.items():
            assert stored is not None
            sums[number] = stored.sums[place]
            n_summed[number] += stored.n_summed[place]
        return KindSums(sizes.names, sizes.n_passages, n_summed, sums), changed


def _kept(members: Members, kind: str, sizes: Sizes, stored: KindSums | None) -> tuple[Mapping[int, int], Changed]:
    """Return which groups have a sum that can be built on, with its place, and what has to be added to all."""
    n = len(sizes.names)
    places = {name: place for place, name in enumerate(stored.names)} if stored else {}
    kept = {number: places[name] for number, name in enumerate(sizes.names) if name in places}
    changed = members.changes(kind, sizes.names, np.isin(np.arange(n), list(kept)))
    if stored is None or not kept:
        return kept, changed
    moves = changed.moves(n)
    again = moves >= sizes.n_passages  # it is less work, too, to add up what there is than to take off what has gone
    for number, place in kept.items():
        again[number] |= stored.n_summed[place] + moves[number] > SUMMED_AGAIN * sizes.n_passages[number]
    if any(again[number] for number in kept):
        kept = {number: place for number, place in kept.items() if not again[number]}
        changed = members.changes(kind, sizes.names, np.isin(np.arange(n), list(kept)))
    return kept, changed


def _add(
    lake: LakeStore, summed: Summed, at: Snapshot, sums: np.ndarray, changed: Changed, *, progress: Progress = _ignore
) -> None:
    encodings = lake.table(encodings_table(summed.encoder), at=at)
    factors = changed.n * changed.factors
    add_vectors(
        sums, encodings, numbers=changed.numbers, positions=changed.positions, factors=factors, progress=progress
    )
