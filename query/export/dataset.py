"""Rows as a folder that `datasets.load_from_disk` reads.

Notable: rows go into one Arrow file as they come; `datasets` maps that into memory, and writes its own folder of it.
So memory stays flat, and for a while the rows are on disk twice.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from proponent.schema.errors import InputError

from .forms import Rows

if TYPE_CHECKING:
    from datasets import Features

_ROWS: Final = "rows.arrow"
_SHARD: Final = "500MB"


def write_dataset(rows: Rows, path: Path) -> int:
    """Write rows into a new or empty folder, which appears whole or not at all; return how many they are.

    Raises InputError for no rows, for a folder that holds something, for types that datasets do not have, and where
    that library is not installed.
    """
    try:
        import datasets
    except ModuleNotFoundError as missing:
        raise InputError(
            "a folder for datasets needs Hugging Face's library; install it with: pip install 'proponent[datasets]'"
        ) from missing
    features = _features(rows.schema)
    with _whole_folder(path) as partial:
        (partial / "made").mkdir(parents=True)
        n_rows = _write_arrow(rows, features.arrow_schema, partial / _ROWS)
        if not n_rows:  # datasets write such a folder, and cannot read it
            raise InputError("there are no rows, and a folder without any cannot be loaded by datasets")
        showed = datasets.is_progress_bar_enabled()
        datasets.disable_progress_bars()
        try:
            made = datasets.Dataset.from_file(str(partial / _ROWS))
            made.save_to_disk(str(partial / "made"), max_shard_size=_SHARD)
        finally:
            if showed:
                datasets.enable_progress_bars()
    return n_rows


def _features(schema: pa.Schema) -> "Features":
    import datasets

    for field in schema:
        try:
            datasets.Features.from_arrow_schema(pa.schema([field])).arrow_schema  # noqa: B018 - made when it is asked
        except (ValueError, NotImplementedError, TypeError, KeyError) as error:
            raise InputError(
                f"datasets have no type for column {field.name!r}, which is {field.type}; cast it in the query"
            ) from error
    return datasets.Features.from_arrow_schema(schema)


def _write_arrow(rows: Rows, schema: pa.Schema, path: Path) -> int:
    """Write an Arrow stream of a schema that says the features, too; return how many rows there are."""
    n_rows = 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in rows.to_batches() if isinstance(rows, pa.Table) else rows.batches():
            writer.write_batch(batch.cast(schema))
            n_rows += batch.num_rows
    return n_rows


@contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder beside the one that is wanted; what is in its folder `made` at the end is moved into place."""
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} does not exist; make the folder first")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there already; name a new folder, or remove it")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        (partial / "made").rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
