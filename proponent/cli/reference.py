"""The command reference, docs/commands.md, made from the help texts: `python -m proponent.cli.reference`."""

from collections.abc import Iterator
from typing import Final

import click

from . import cli

_WIDTH: Final = 100
"""Columns of the help texts, whatever the terminal."""

_INTRODUCTION: Final = """\
# Commands

Every command answers `-h` with the text that is here. Data goes to stdout, everything else (progress, remarks,
warnings) to stderr. Exit codes: 0 done, 1 an error that the message names, 2 wrong usage.

This page is generated: `make docs` writes it anew."""


def walk(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield a command and all commands below it, each with its context, in the order of the group."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from walk(child, _context(child, name, context))


def commands() -> Iterator[tuple[click.Command, click.Context]]:
    """Yield every command of the command line, the group itself first."""
    return walk(cli, _context(cli, "proponent", None))


def render() -> str:
    """Return the command reference as Markdown; the same on every machine."""
    sections = [_INTRODUCTION]
    for command, context in commands():
        heading = "##" + "#" * context.command_path.count(" ")
        sections.append(f"{heading} {context.command_path}\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(sections) + "\n"


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    settings = {**command.context_settings, "terminal_width": _WIDTH, "color": False}
    return click.Context(command, info_name=name, parent=parent, **settings)


if __name__ == "__main__":
    click.echo(render(), nl=False)
