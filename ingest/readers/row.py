"""What a reader yields."""

from typing import Any, NamedTuple


class RawRow(NamedTuple):
    """A row as it was read: its fields, or why it has none."""

    row: int
    """Line or row of the file, from 1."""
    raw: bytes
    """The row's bytes, or its JSON text where the format has no lines."""
    fields: dict[str, Any] | None
    error: str | None = None
