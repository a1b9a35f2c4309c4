"""The catalog by itself: its database, what was being published, and what dead processes hold."""

from collections import Counter
from collections.abc import Iterator

from sqlalchemy import text

from proponent.schema.errors import LakeError
from proponent.store.catalog import Catalog
from proponent.store.lake import LakeStore
from proponent.store.leases import is_alive
from proponent.store.place import names_in, sizes_below
from proponent.store.published import older_than, published

from .facts import Facts
from .findings import BACKUP, CATCH_UP, REPAIR, Finding, named


def check_database(catalog: Catalog) -> Iterator[Finding]:
    """Yield what SQLite finds wrong with its own file; PostgreSQL looks after its own."""
    if catalog.engine.dialect.name != "sqlite":
        return
    try:
        with catalog.read() as session:
            told = [str(row[0]) for row in session.execute(text("PRAGMA integrity_check(10)"))]
            orphaned = [f"{row[0]} row {row[1]}" for row in session.execute(text("PRAGMA foreign_key_check"))]
    except LakeError as error:
        told, orphaned = [str(error)], []
    for line in told:
        if line != "ok":
            yield Finding("damage", "catalog", "catalog", f"SQLite says: {line}", BACKUP)
    if orphaned:
        what = f"rows that refer to rows which are not there: {named(orphaned)}"
        yield Finding("damage", "catalog", "catalog", what, BACKUP)


def check_age(lake: LakeStore) -> Iterator[Finding]:
    """Yield that the catalog is older than the tables: then all else that is found follows from that."""
    told = published(lake)
    if (newest := older_than(lake, told)) is not None:
        what = f"it ends with snapshot {newest}, and the tables are at {told.snapshot}: it was restored from a copy"
        remedy = f"put a newer copy in its place, or {CATCH_UP} learns from the tables what it can"
        yield Finding("damage", "older catalog", "catalog", what, remedy)


def check_work(lake: LakeStore, facts: Facts) -> Iterator[Finding]:
    """Yield what is half done and nobody is at: publications, locks, and units that a run could go on with."""
    publishing = any(one.name == "commit" and is_alive(one) for one in facts.rows["locks"])
    for publication in () if publishing else facts.rows["publications"]:
        lost = _lost_files(lake, publication.plan)
        where, names = f"catalog publication {publication.publication_id}", (publication.publication_id,)
        if lost:
            what = f"what was being published is gone: {named(lost)}"
            yield Finding("damage", "lost publication", where, what, BACKUP, "", names)
        else:
            what = "it was planned and not carried out to its end"
            remedy = f"{REPAIR}, or whatever writes next, finishes it"
            yield Finding("leftover", "publication", where, what, remedy, "", names)
    for lock in facts.rows["locks"]:
        if not is_alive(lock):
            what = f"process {lock.pid} on {lock.host.partition('/')[0]}, which held it, is dead"
            remedy = f"{REPAIR} removes it; whoever needs it takes it over, too"
            yield Finding("leftover", "lock", f"catalog lock {lock.name!r}", what, remedy, "", (lock.name, lock.token))
    yield from _runs_cut_short(lake, facts)


def _lost_files(lake: LakeStore, plan: dict[str, dict[str, dict[str, object]]]) -> list[str]:
    lost = []
    for table, step in plan["tables"].items():
        here = sizes_below(lake.table_dir(table) / "data")
        fragments: list[dict[str, list[dict[str, str]]]] = step.get("fragments", [])  # type: ignore[assignment]
        files = [file["path"] for fragment in fragments for file in fragment["files"]]
        lost += [f"{table} data/{file}" for file in files if file not in here]
    return lost


def _runs_cut_short(lake: LakeStore, facts: Facts) -> Iterator[Finding]:
    """Yield runs whose units wait for nobody, and folders of runs that have no units any more."""
    if facts.at_work:
        return
    kinds = {run.run_id: run.kind for run in facts.rows["runs"]}
    counted = Counter(unit.run_id for unit in facts.rows["units"])
    for run_id, number in counted.items():
        what = f"an unfinished {kinds.get(run_id)} with {number} units"
        remedy = "start the same command again to go on with it; `proponent compact` drops it"
        yield Finding("note", "units", f"catalog run {run_id}", what, remedy, "", (run_id,))
    folders = [name for name in names_in(lake.work_dir) if name not in counted]
    if folders:
        what = "what a run that is over has left for its workers"
        yield Finding("leftover", "work", f"work/{named(folders)}", what, f"{REPAIR} removes it", "", tuple(folders))
