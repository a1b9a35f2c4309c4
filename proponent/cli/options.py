"""Options that several commands share, each defined once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

lake_argument = click.argument("lake", type=click.Path(path_type=Path))
"""The lake, always the first argument."""


def quiet_option(command: F) -> F:
    """Add `-q`."""
    return click.option("-q", "--quiet", is_flag=True, help="No progress and no remarks on stderr.")(command)


def output_options(command: F) -> F:
    """Add the options of every command that prints data: `--format`, `-o` and `-q`."""
    command = click.option(
        "--format",
        "form",
        type=click.Choice(["table", "json", "jsonl", "csv", "parquet", "md"]),
        help="Form of the output; by default a table, or what the suffix of -o says.",
    )(command)
    command = click.option(
        "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file instead of stdout."
    )(command)
    return quiet_option(command)
