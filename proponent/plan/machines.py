"""Machines that a plan is put to: those of a table, and what `calibrate` measured."""

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar

from proponent.schema.errors import InputError, SettingsError

T = TypeVar("T")

HERE: Final = "here"
"""Name of the machine at hand, which is measured."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What one device does, with its share of the host."""

    name: str
    encode_flops: float
    """FLOP/s that encoding reaches: of a table's device, peak times `use`."""
    double_flops: float
    """FLOP/s of eigendecompositions in float64, counted as 12 n^3 each."""
    product_flops: float
    """FLOP/s of stored vectors times queries, in an exact scan."""
    scan_bytes: float
    """Bytes of stored encodings that are decoded in a second, when they are in memory."""
    read_bytes: float
    """Bytes a second from disk or object store."""
    memory: float
    """Bytes of host memory."""
    price: float
    """Money for an hour of one device."""


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Prices of an object store."""

    gigabyte_month: float
    thousand_puts: float
    thousand_gets: float
    part_bytes: float
    """Bytes of one part of an upload, and of one read."""


def machine(name: str, *, own: Path | None = None, use: float | None = None) -> Machine:
    """Return a machine of the table, or of the user's own TOML file. Raises SettingsError for an unknown one."""
    table = _table(own)["machine"]
    if name not in table:
        raise SettingsError(f"no machine {name!r}; there are {', '.join(sorted(table))}, and {HERE} measures this one")
    row = {"name": name} | table[name]
    if {"peak_flops", "use"} <= row.keys():
        peak, usual = row.pop("peak_flops"), row.pop("use")
        row["encode_flops"] = peak * (usual if use is None else use)
    return _made(Machine, row, name)


def storage(own: Path | None = None) -> Storage:
    """Return the prices of the object store."""
    return _made(Storage, _table(own)["storage"], "storage")


def _made(kind: type[T], row: dict[str, Any], name: str) -> T:
    wrong = set(row) ^ {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if wrong:
        raise InputError(f"{name} of the machines' file lacks, or does not know, {', '.join(sorted(wrong))}")
    return kind(**row)


def _table(own: Path | None) -> dict[str, Any]:
    table = _shipped()
    if own is None:
        return table
    try:
        given = tomllib.loads(own.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{own} is no TOML file: {error}") from error
    known = {key: value for key, value in given.items() if key in table and isinstance(value, dict)}
    if known.keys() != given.keys():
        raise InputError(
            f"{own} has {', '.join(given.keys() - known.keys())}; it may have [machine.NAME] and [storage]"
        )
    machines = {name: table["machine"].get(name, {}) | row for name, row in known.get("machine", {}).items()}
    return {"machine": table["machine"] | machines, "storage": table["storage"] | known.get("storage", {})}


@cache
def _shipped() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("machines.toml").read_text("utf-8"))
