"""Options that several commands share, each defined once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FORMS = ("json", "jsonl", "csv", "md", "parquet", "arrow", "xlsx")
"""Forms of rows; those of `query.export.forms`, which takes its time to import."""

lake_argument = click.argument("lake", type=click.Path(path_type=Path))
"""The lake, always the first argument."""


def quiet_option(command: F) -> F:
    """Add `-q`."""
    return click.option("-q", "--quiet", is_flag=True, help="No progress and no remarks on stderr.")(command)


def writable(path: Path) -> Path:
    """Return a file's name. Raises InputError where it could not be written, before minutes of work end in that."""
    from proponent.schema.errors import InputError

    if not path.parent.is_dir():
        raise InputError(f"{path.parent} does not exist; make the folder first")
    return path


def to_write(_context: click.Context, _parameter: click.Parameter, output: Path | None) -> Path | None:
    """Refuse what `writable` refuses."""
    return output and writable(output)


def output_options(command: F) -> F:
    """Add the options of every command that prints data: `--format`, `-o` and `-q`."""
    command = click.option(
        "--format",
        "form",
        type=click.Choice(["table", *FORMS]),
        help="Form of the output; by default a table, or what the suffix of -o says.",
    )(command)
    command = click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=to_write,
        help="Write to a file instead of stdout.",
    )(command)
    return quiet_option(command)
