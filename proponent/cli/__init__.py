"""The command line: `proponent COMMAND LAKE ...`.

Notable: commands are imported when they are called, and what they need is imported inside them, so that `--help`
answers at once. Data goes to stdout, everything else to stderr; exit codes are 0 done, 1 a named error, 2 usage.
"""

import importlib
import logging
import os
import signal
import sys
import warnings
from typing import Any, Final, NoReturn

import click

from proponent.observe import telemetry
from proponent.observe.events import tell
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
LOG_FORMS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
"""Those of `schema.settings`, which takes its time to import."""
_log = logging.getLogger(__name__)


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
    "--log-format",
    type=click.Choice(LOG_FORMS),
    default="text",
    show_default=True,
    envvar="PROPONENT_LOG_FORMAT",
    help="Logs as lines of text, or as JSON objects, one a line.",
)
@click.option(
    "--log-file",
    type=click.Path(dir_okay=False, resolve_path=True),
    envvar="PROPONENT_LOG_FILE",
    help="Append logs, of workers too, to a file in the place of stderr.",
)
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    envvar="PROPONENT_LOG_LEVEL",
    help="Least grave records that are logged; by default info in JSON or in a file, else warning.",
)
@click.option(
    "--storage",
    type=KeyValue(),
    multiple=True,
    metavar="KEY=VALUE",
    help="How to reach a lake in an object store, beside the environment: aws_endpoint=https://s3.example.org",
)
def cli(
    verbose: bool,
    log_format: str,
    log_file: str | None,
    log_level: str | None,
    storage: tuple[tuple[str, str], ...],
) -> None:
    """Find out which training data made a language model say something.

    A lake keeps a corpus with its metadata and every passage's compressed gradient encoding. Trace an answer to the
    passages that pushed the model towards it, join them with the documents in SQL, and hand out a report.

    \b
    Example:
      proponent demo
    """
    from proponent.observe import logs
    from proponent.schema.settings import LogSettings

    kept = log_format == "json" or log_file is not None
    level = log_level or ("info" if verbose or kept else "warning")
    logs.hide(*(value for _, value in storage))
    logs.set_up(LogSettings(form=log_format, level=level, file=log_file))
    telemetry.set_up()
    _quieten_libraries(verbose)


def _quieten_libraries(verbose: bool) -> None:
    # Libraries' own remarks, about names that changed or a tokenizer's limit, say nothing that a person could act on.
    if not verbose:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> None:
    """Run the command line; every named error becomes one line on stderr and exit code 1."""
    try:
        _run()
    finally:
        telemetry.flush()


def _run() -> None:
    from proponent.schema.errors import ProponentError

    # What ends a service ends a command as Ctrl-C does: workers hand in what they have begun. The first process of a
    # container would not even be told otherwise.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
        _end(error, _one_line(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _tell_storage(error)
        where = f"{error.filename}: " if error.filename else ""
        _end(error, f"{where}{error.strerror or _one_line(error)}")
    except Exception as error:
        _tell_storage(error)
        # What nobody has named yet. With -v the traceback shows where it is from.
        _log.info("the error in full", exc_info=error)
        _end(error, f"{type(error).__name__}: {_one_line(error)} (-v before the command shows more)")


def _tell_storage(error: BaseException) -> None:
    """End with a line about the object store where it is that which has failed, whatever library met it."""
    from proponent.store.objects import storage_error

    if (away := storage_error(error)) is not None:
        _end(away, _one_line(away))


def _end(error: BaseException, line: str) -> NoReturn:
    """End with a line that says what went wrong, on stderr, and in logs where those are elsewhere."""
    from proponent.observe import logs

    if logs.is_kept():
        tell(_log, "command failed", level=logging.ERROR, kind=type(error).__name__, error=line)
    if not logs.takes_stderr():
        click.echo(f"error: {line}", err=True)
    sys.exit(1)


def _one_line(error: BaseException) -> str:
    """Return a message on one line, without control characters that could steer the terminal."""
    line = " ".join(str(error).split())
    return "".join(letter if letter.isprintable() else "�" for letter in line)
