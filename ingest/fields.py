"""Field mappings in TOML files."""

import tomllib
from dataclasses import fields
from pathlib import Path

from proponent.schema.errors import SettingsError
from proponent.schema.settings import FieldMapping


def read_fields(path: Path) -> dict[str, str]:
    """Return the mapping that a TOML file holds: lines such as `title = "headline"`, named as the options are.

    Raises SettingsError for a file that cannot be read, and for a name that is no column.
    """
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    names = [field.name for field in fields(FieldMapping)]
    for name, value in found.items():
        if name not in names:
            raise SettingsError(f"{path}: {name!r} is no column; the columns are {', '.join(names)}")
        if not isinstance(value, str):
            raise SettingsError(f"{path}: {name} must be a text in quotes, the name of a field")
    return found
