"""Artifacts against their names, which are hashes of what is in them, and against the catalog, which names them."""

from collections.abc import Iterator
from typing import Final

from proponent.schema.ids import stream_id
from proponent.store.lake import LakeStore
from proponent.store.place import chunks_of, names_in

from .facts import Facts
from .findings import BACKUP, REPAIR, Finding, named

NAMING: Final = (("encoders", "artifact"), ("curvatures", "artifact"))
"""Tables and columns of the catalog that name artifacts."""


def artifact_names(facts: Facts) -> set[str]:
    """Return the artifacts that the catalog names."""
    values = (getattr(row, column) for table, column in NAMING for row in facts.rows[table])
    return {value for value in values if value}


def check_artifacts(lake: LakeStore, facts: Facts) -> Iterator[Finding]:
    """Yield which artifacts are missing, changed, or named by nobody."""
    wanted = artifact_names(facts)
    for name in sorted(wanted):
        path, what = lake.artifacts_dir / name, None
        if not path.is_file():
            what = "it is missing"
        elif f"{stream_id('artifact', chunks_of(path))}.safetensors" != name:
            what = "its content does not match its name"
        if what is not None:
            remedy = f"{BACKUP}, or fit anew under another name"
            yield Finding("damage", "artifact", f"artifacts/{name}", what, remedy, "", (name,))
    here = set(names_in(lake.artifacts_dir))
    if not facts.at_work and (extra := sorted(here - wanted)):
        what = "no encoder or curvature names it"
        where = f"artifacts/{named(extra)}"
        yield Finding("leftover", "artifact orphans", where, what, f"{REPAIR} removes it", "", tuple(extra))
