"""Checking a lake: everything that is stored against everything that is said of it, and mending what can be mended.

Notable: files are compared first, with the hashes of what was written; only tables whose files are sound are then read
for what their rows have to hold, so that damage is told where it is and never read.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import lance
from sqlalchemy.exc import DatabaseError

from proponent.schema.errors import CatalogError, DamagedLakeError, StorageError
from proponent.schema.ids import fresh_id
from proponent.store.files import tables_on_disk
from proponent.store.lake import LakeStore
from proponent.store.leases import lease
from proponent.store.probe import LANCE_ERRORS, Prober, Unreadable

from .artifacts import check_artifacts
from .catalog import check_age, check_database, check_work
from .concerned import documents_concerned
from .facts import Facts, read_facts
from .findings import BACKUP, REPAIR, Finding, Grade, named
from .rules import broken_rules
from .tables import CheckedTable, TableChecker

__all__ = ["BACKUP", "REPAIR", "Finding", "Grade", "check", "held_against_compaction"]

Progress = Callable[[int], object]
_WAIT_S = 5.0
_IN_PROGRESS = ("orphans", "artifact orphans", "unpublished", "work", "publication", "tags")
"""Kinds of findings that somebody who writes gives rise to."""


def check(lake: LakeStore, *, deep: bool = False, progress: Progress = lambda _n: None) -> list[Finding]:
    """Return what is wrong with a lake at its newest snapshot, and with `deep` in the files of all earlier ones.

    `progress` is told the rows that were read. It changes nothing, and others may read and write meanwhile; files that
    no version names and locks are then not judged. Raises LakeBusyError while the lake is being compacted.
    """
    found = list(check_database(lake.catalog)) or list(check_age(lake))
    if found:
        return found
    with held_against_compaction(lake, f"check {fresh_id()}"), Prober() as prober:
        facts = _facts(lake)
        if isinstance(facts, Finding):
            return [facts]
        checker = TableChecker(lake, facts, prober, deep=deep, progress=progress)
        checked = [checker.check(name) for name in _names(lake, facts, deep=deep)]
        found += [finding for table in checked for finding in table.findings]
        found += documents_concerned({table.name: table for table in checked})
        found += _rules(lake, facts, checked, prober)
        found += check_artifacts(lake, facts)
        found += check_work(lake, facts)
        found += _indexes_without_data(facts, checked)
        if facts.at_work:
            what = "somebody is writing, so what no version names was not looked at"
            remedy = "none needed; check again when they are done"
            found.append(Finding("note", "at work", f"catalog {named(facts.at_work)}", what, remedy))
        now = _facts(lake)
        if isinstance(now, Finding) or now.at_work or now.at != facts.at:  # somebody began to write meanwhile
            found = [finding for finding in found if finding.kind not in _IN_PROGRESS]
    return found


@contextmanager
def held_against_compaction(lake: LakeStore, name: str) -> Iterator[None]:
    """Keep files from being removed in a with block, where the catalog can be written; nobody else can remove any."""
    holding = lease(lake.catalog, name, wait_s=_WAIT_S)
    try:
        holding.__enter__()
    except CatalogError:  # on a disk that can only be read
        yield
        return
    try:
        yield
    finally:
        with suppress(CatalogError):
            holding.__exit__(None, None, None)


def _facts(lake: LakeStore) -> Facts | Finding:
    try:
        facts = read_facts(lake.catalog)
    except (DatabaseError, ValueError, TypeError, KeyError) as error:
        return Finding("damage", "catalog", "catalog", f"it cannot be read: {error}", BACKUP)
    if not facts.snapshots:
        raise DamagedLakeError("the catalog names no snapshot that can be read; restore it from a backup")
    return facts


def _names(lake: LakeStore, facts: Facts, *, deep: bool) -> list[str]:
    """Return the tables to check: those that snapshots name, and those that lie in the folder for some reason."""
    snapshots = facts.snapshots if deep else [facts.at]
    return sorted({name for snapshot in snapshots for name in snapshot.versions} | set(tables_on_disk(lake)))


def _rules(lake: LakeStore, facts: Facts, checked: list[CheckedTable], prober: Prober) -> Iterator[Finding]:
    sound = {table.name: table.dataset for table in checked if table.dataset is not None and table.is_sound}

    def older(version: int) -> lance.LanceDataset | None:
        try:
            prober.open(lake.table_dir("passages"), version)
            return lake.opened("passages", version)
        except StorageError:
            raise
        except (Unreadable, *LANCE_ERRORS):
            return None

    yield from broken_rules(sound, facts, older)
    unread = sorted(table.name for table in checked if not table.is_sound and facts.at.has(table.name))
    if unread:
        what = "their rows were not compared with those of other tables"
        yield Finding("note", "not compared", named(unread), what, "check again when they are mended")


def _indexes_without_data(facts: Facts, checked: list[CheckedTable]) -> Iterator[Finding]:
    """Yield vector tables that have lost their index, as a compaction that was killed leaves them."""
    for table in checked:
        if not table.name.startswith("index_") or table.dataset is None or not table.is_sound:
            continue
        if not table.dataset.describe_indices():
            what, remedy = "it has no index", f"{REPAIR} builds it again"
            yield Finding("leftover", "no index", table.name, what, remedy, table.name)
