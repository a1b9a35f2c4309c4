"""The command line: `proponent COMMAND LAKE ...`.

Notable: commands are imported when they are called, and what they need is imported inside them, so that `--help`
answers at once. Data goes to stdout, everything else to stderr; exit codes are 0 done, 1 a named error, 2 usage.
"""

import importlib
import logging
import os
import sys
import warnings
from typing import Any, Final

import click

from proponent.version import __version__

_COMMANDS: Final = {
    "demo": "demo",
    "init": "lake",
    "ingest": "ingest",
    "entities": "entities",
    "duplicates": "duplicates",
    "model": "model",
    "encode": "encode",
    "work": "lake",
    "requantise": "encode",
    "curvature": "curvature",
    "index": "encode",
    "trace": "trace",
    "explain": "explain",
    "groups": "groups",
    "sql": "sql",
    "report": "report",
    "export": "export",
    "evaluate": "evaluate",
    "serve": "serve",
    "import-traces": "imports",
    "mark": "mark",
    "delete": "delete",
    "check": "check",
    "compact": "compact",
    "backup": "backup",
    "restore": "backup",
    "history": "delete",
    "status": "lake",
    "plan": "plan",
    "migrate": "lake",
}
"""Every command with the module of this package that has it, in the order of the work."""


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f".{_COMMANDS[cmd_name]}", __package__)
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


class KeyValue(click.ParamType[tuple[str, str]]):
    """A name and its value, as in name=value."""

    name = "key=value"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> tuple[str, str]:
        """Return both; the value, which may be a secret, stays out of messages."""
        if isinstance(value, tuple):
            return value
        key, sign, given = str(value).partition("=")
        if not sign or not key:
            self.fail("write --storage KEY=VALUE", parameter, context)
        return key, given


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="proponent")
@click.option("-v", "--verbose", is_flag=True, help="Show what happens, on stderr.")
@click.option(
    "--storage",
    type=KeyValue(),
    multiple=True,
    metavar="KEY=VALUE",
    help="How to reach a lake in an object store, beside the environment: aws_endpoint=https://s3.example.org",
)
def cli(verbose: bool, storage: tuple[tuple[str, str], ...]) -> None:
    """Find out which training data made a language model say something.

    A lake keeps a corpus with its metadata and every passage's compressed gradient encoding. Trace an answer to the
    passages that pushed the model towards it, join them with the documents in SQL, and hand out a report.

    \b
    Example:
      proponent demo
    """
    _set_up_logging(verbose)


def _set_up_logging(verbose: bool) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("proponent").setLevel(logging.INFO if verbose else logging.WARNING)
    for noisy in ("alembic", "transformers", "lance", "lancedb"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # Libraries' own remarks, about names that changed or a tokenizer's limit, say nothing that a person could act on.
    if not verbose:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> None:
    """Run the command line; every named error becomes one line on stderr and exit code 1."""
    from proponent.schema.errors import ProponentError

    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; start the same command again to go on", err=True)
        sys.exit(130)
    except ProponentError as error:
        click.echo(f"error: {_one_line(error)}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _tell_storage(error)
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {where}{error.strerror or _one_line(error)}", err=True)
        sys.exit(1)
    except Exception as error:
        _tell_storage(error)
        # What nobody has named yet. With -v the traceback shows where it is from.
        logging.getLogger("proponent").info("the error in full", exc_info=error)
        click.echo(f"error: {type(error).__name__}: {_one_line(error)} (-v before the command shows more)", err=True)
        sys.exit(1)


def _tell_storage(error: BaseException) -> None:
    """End with a line about the object store where it is that which has failed, whatever library met it."""
    from proponent.store.objects import storage_error

    if (away := storage_error(error)) is not None:
        click.echo(f"error: {_one_line(away)}", err=True)
        sys.exit(1)


def _one_line(error: BaseException) -> str:
    """Return a message on one line, without control characters that could steer the terminal."""
    line = " ".join(str(error).split())
    return "".join(letter if letter.isprintable() else "�" for letter in line)
