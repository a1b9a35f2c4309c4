"""What was published last, told beside the tables: how a catalog that was restored from an older copy is found out.

Notable: the catalog alone says which versions belong together. One that is older than the tables would hand out
withdrawn documents again, give snapshots numbers that others had, and put the tables back to what it knows. So every
publication leaves its number in `published.json` before it becomes visible, and `known.json` has the small facts that
only the catalog has: models, encoders, curvatures. Whoever opens a lake compares; `check --catch-up` mends
(`check/catching_up.py`). Nothing else reads the two files.
"""

import json
from typing import Any, Final, NamedTuple

from sqlalchemy import inspect, select
from sqlalchemy.orm import Session

from proponent.schema import catalog as models
from proponent.schema.errors import DamagedLakeError, OlderCatalogError
from proponent.schema.ids import content_id

from .lake import LakeStore
from .place import chunks_of, names_in, write_whole

MARK: Final = "published.json"
KNOWN: Final = "known.json"
_KINDS: Final[tuple[type[models.Base], ...]] = (models.Model, models.Encoder, models.Curvature)
"""Rows of the catalog without which tables cannot be read; each kind refers to those before it."""
_TAG: Final = "snapshot-"


class Published(NamedTuple):
    """The newest publication that the tables have."""

    snapshot: int
    publication: str | None
    """None where it is known by the tables' tags alone: in lakes from before this was written."""


def published(lake: LakeStore) -> Published:
    """Return what was published last, as the files of the lake say. Raises DamagedLakeError."""
    try:
        told = json.loads(b"".join(chunks_of(lake.root / MARK)))
        return Published(int(told["snapshot"]), told["publication"])
    except FileNotFoundError:
        return Published(_newest_tag(lake), None)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedLakeError(f"{lake.root / MARK} cannot be read; remove it, then check the lake") from error


def tell_published(lake: LakeStore, session: Session, *, snapshot_id: int, publication_id: str | None) -> None:
    """Write down what is about to be published, before the catalog's transaction is committed."""
    facts = _facts(session)
    if _hash_of(lake) != (known := content_id("known", facts)):
        write_whole(lake.root / KNOWN, facts.encode())
    told = {"snapshot": snapshot_id, "publication": publication_id, "known": known}
    write_whole(lake.root / MARK, json.dumps(told).encode())


def known_rows(lake: LakeStore) -> list[models.Base]:
    """Return the models, encoders and curvatures that the lake had at its last publication, in order."""
    try:
        told = json.loads(b"".join(chunks_of(lake.root / KNOWN)))
    except FileNotFoundError:  # a lake from before this was written
        return []
    return [kind(**values) for kind in _KINDS for values in told.get(kind.__tablename__, [])]


def require_newest(lake: LakeStore) -> None:
    """Raise OlderCatalogError when the tables have been published to beyond what the catalog knows."""
    told = published(lake)  # before the catalog is looked at, which may go on meanwhile
    if (newest := older_than(lake, told)) is not None:
        raise OlderCatalogError(
            f"the catalog of {lake.root} is older than its tables: it ends with snapshot {newest}, and they are at "
            f"{told.snapshot}; put a newer copy of the catalog in its place, or run `proponent check {lake.root} "
            "--catch-up`"
        )


def older_than(lake: LakeStore, told: Published) -> int | None:
    """Return the newest snapshot of a catalog that does not know what was published, None for one that does."""
    still_open = select(models.Publication.publication_id).where(models.Publication.snapshot_id.is_(None))
    latest = select(models.Snapshot.snapshot_id).order_by(models.Snapshot.snapshot_id.desc()).limit(1)
    with lake.catalog.read() as session:
        # In this order: what is not open any more has its snapshot.
        planned = set(session.scalars(still_open))
        newest = session.scalars(latest).first() or 0
    # What is being published, or was cut short at that, has told of itself already.
    if told.publication is None:
        return newest if told.snapshot > newest + len(planned) else None
    return newest if told.snapshot > newest and told.publication not in planned else None


def _newest_tag(lake: LakeStore) -> int:
    newest = 1
    for name in names_in(lake.tables_dir):
        tags = names_in(lake.tables_dir / name / "_refs" / "tags")
        numbers = (one.removeprefix(_TAG).removesuffix(".json") for one in tags if one.startswith(_TAG))
        newest = max([newest, *(int(one) for one in numbers if one.isdecimal())])
    return newest


def _hash_of(lake: LakeStore) -> str | None:
    """Return the hash of the facts that are written down, None where there are none."""
    try:
        known = json.loads(b"".join(chunks_of(lake.root / MARK))).get("known")
    except (FileNotFoundError, ValueError, AttributeError):
        return None
    return None if known is None else str(known)


def _facts(session: Session) -> str:
    """Return the rows of the catalog that tables rest on, as JSON, without when they were made."""
    told: dict[str, list[dict[str, Any]]] = {}
    for kind in _KINDS:
        columns = [one.key for one in inspect(kind).mapper.column_attrs if one.key != "created_at"]
        key = inspect(kind).primary_key[0]
        rows = session.scalars(select(kind).order_by(key))
        told[kind.__tablename__] = [{name: getattr(row, name) for name in columns} for row in rows]
    return json.dumps(told, sort_keys=True)
