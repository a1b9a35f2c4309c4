"""Numbered migrations of the Lance tables, each a module with a function `plan`.

Notable: what a migration changes and the number of it appear with one snapshot, by the committer and its journal. So a
migration that was cut short was carried out or was not, whoever starts again goes on after the last one that was, and
snapshots from before keep the form that they have.
"""

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import Final, NamedTuple

from proponent.store.commit import committing
from proponent.store.lake import LakeStore
from proponent.store.leases import ALONE, Lease, lease
from proponent.store.runs import recorded_run
from proponent.store.snapshots import latest_snapshot

from .plan import Plan

_WAIT_S: Final = 120.0
"""Seconds to wait for others: for who migrates the same lake, mostly."""


class TableMigration(NamedTuple):
    """One migration: its number, its name and how it finds out what it has to change."""

    number: int
    name: str
    plan: Callable[[LakeStore, Lease], Plan]


def table_migrations() -> list[TableMigration]:
    """Return all migrations in their order."""
    names = sorted(found.name for found in iter_modules(__path__) if found.name[:4].isdigit())
    modules = {name: import_module(f"{__name__}.{name}") for name in names}
    return [TableMigration(int(name[:4]), name[5:], module.plan) for name, module in modules.items()]


def migrate_tables(lake: LakeStore, *, wait_s: float = _WAIT_S) -> list[str]:
    """Carry out the migrations that the newest snapshot has not had; return their names.

    The catalog must be at its newest revision. Raises LakeBusyError while others write to the lake.
    """
    done: list[str] = []
    if not _pending(lake):
        return done
    with lease(lake.catalog, ALONE, wait_s=wait_s) as held:
        with committing(lake, under=[held]):
            pass  # finishes what was being published
        for migration in _pending(lake):  # looked up again: others may have carried out some while this one waited
            _carry_out(lake, migration, held)
            done.append(migration.name)
    return done


def _carry_out(lake: LakeStore, migration: TableMigration, held: Lease) -> None:
    settings = {"tables": migration.number, "name": migration.name}
    with recorded_run(lake.catalog, "migrate", settings) as run:
        plan = migration.plan(lake, held)
        with committing(lake, under=[held]) as committer:
            committer.publish(run.run_id, plan.changes, adopt=plan.adopt, table_migration=migration.number)
        run.counts = {"tables": len(plan.changes) + len(plan.adopt)}


def _pending(lake: LakeStore) -> list[TableMigration]:
    reached = latest_snapshot(lake.catalog).table_migration
    return [migration for migration in table_migrations() if migration.number > reached]
