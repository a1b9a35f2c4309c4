"""What a check finds: one line each, with the remedy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Grade = Literal["damage", "leftover", "note", "mended"]
"""`damage` is lost or wrong data, `leftover` what a dead process has left, `note` neither, `mended` a repair."""

BACKUP: Final = "restore from a backup"
REPAIR: Final = "proponent check LAKE --repair"
CATCH_UP: Final = "proponent check LAKE --catch-up"
_NAMED: Final = 3


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a lake, or worth knowing."""

    grade: Grade
    kind: str
    """What a repair goes by."""
    where: str
    what: str
    remedy: str
    table: str = ""
    names: tuple[str, ...] = ()
    """The files, rows or catalog rows that it is about."""

    @property
    def is_wrong(self) -> bool:
        """Whether the lake is not as it should be."""
        return self.grade in ("damage", "leftover")


def named(names: Iterable[str], *, of: int | None = None) -> str:
    """Return the first of some names, and how many there are when those are not all."""
    first: Sequence[str] = list(names)
    total = len(first) if of is None else of
    shown = ", ".join(first[:_NAMED])
    return shown if total <= _NAMED else f"{shown}, ... ({total:,})"


def is_derived(table: str) -> bool:
    """Return whether a table's rows can be made again from others: encodings by the model, the rest from encodings."""
    return table.startswith(("encodings_", "norms_", "index_"))


def remedy_of(table: str) -> str:
    """Return what to do about rows of a table that are wrong or gone."""
    if table.startswith("index_"):
        return f"{REPAIR} builds the index again"
    if table.startswith("norms_"):
        return f"{REPAIR} removes them; the next trace or `proponent curvature` computes them again"
    if is_derived(table):
        return f"{REPAIR} removes them; `proponent encode` makes them again"
    return BACKUP
