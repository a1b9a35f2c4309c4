"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proponent.schema.errors import InputError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give another name in the same folder to write to; what is there at the end is moved into place.

    Raises InputError when the folder is missing, or something there is no file.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} does not exist; make the folder first")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
