"""`proponent serve`: the explorer in a browser."""

import errno
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import quiet_option
from .output import remark

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from types import FrameType

    from proponent.lake import Lake
    from proponent.observe.metrics import Metrics
    from proponent.query.web.explorer import Explorer
    from proponent.schema.settings import ServeSettings

_PATIENCE_S = 3
"""Seconds that requests have to end when the server does."""


@click.command()
@click.argument("lake", type=click.Path(path_type=Path), required=False)
@click.option(
    "--file",
    "files",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="Show a file of results in the form of `export --format viewer`, in place of a lake; may be repeated.",
)
@click.option(
    "--evaluation",
    "evaluations",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="DIR",
    help="Show the results of an `evaluate -o DIR` beside the queries; may be repeated.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; by default this machine's.")
@click.option("--port", type=int, default=8321, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option(
    "--token",
    envvar="PROPONENT_TOKEN",
    help="What readers must know, 12 characters at least; the variable PROPONENT_TOKEN keeps it out of sight.",
)
@click.option(
    "--expose",
    "exposed",
    is_flag=True,
    help="Let other machines in: whoever reaches the port and knows the token can read the whole corpus.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="HOST",
    help="A name that browsers may open it by, besides localhost and addresses in numbers; may be repeated.",
)
@click.option("--read-only", is_flag=True, help="Show what is there, and take no questions: nothing is stored.")
@click.option("--open/--no-open", "show", default=True, show_default=True, help="Open it in the browser.")
@quiet_option
def serve(
    lake: Path | None, files: tuple[Path, ...], evaluations: tuple[Path, ...], show: bool, quiet: bool, **given: Any
) -> None:
    """Show a lake in a browser: ask, look at results, look through corpus and queries, run SQL.

    It listens on this machine alone. With --expose and a --token others can open it, too. Ctrl-C ends it; what was
    asked is kept in the lake. With --file there is no lake: results that another tool wrote are shown, and nothing is
    kept. Needs the extra `serve`; with the extra `telemetry`, /metrics is there for Prometheus, behind the same token.

    \b
    Examples:
      proponent serve mylake
      proponent serve mylake --port 9000 --read-only --no-open
      proponent serve mylake --evaluation results
      proponent serve --file results.jsonl
    """
    from dataclasses import replace

    from proponent.schema.settings import ServeSettings

    if (lake is None) != bool(files):
        raise click.UsageError("name a LAKE, or files of results with --file, and not both")
    _require_extra()
    settings = ServeSettings(**given)
    from proponent.query.web.evaluated import read_evaluations

    evaluated = read_evaluations(evaluations)
    with _open(lake, files, quiet=quiet) as opened, _listen(settings) as listening:
        from proponent.query.web.explorer import Explorer

        explorer = Explorer(
            lake=opened.store,
            settings=replace(settings, read_only=settings.read_only or bool(files)),
            asker=opened,
            status=opened.status,
            has_lake=not files,
            evaluations=evaluated,
            metrics=_metrics(opened),
        )
        port = listening.getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"http://{'127.0.0.1' if host in {'0.0.0.0', '[::]'} else host}:{port}/"  # noqa: S104 - compared only
        if files:
            address += "queries"  # where there is something to be seen: nobody can be asked
        shown = ", ".join(map(str, files)) or str(opened.store.root)
        remark(f"{shown} is at {address} (Ctrl-C ends it)", quiet=quiet)
        _run(explorer, listening, show=address if show else None)
    remark("ended", quiet=quiet)


def _open(lake: Path | None, files: "Sequence[Path]", *, quiet: bool) -> "AbstractContextManager[Lake]":
    """Return a lake to be opened, or one that is made of files and is gone afterwards."""
    if lake is not None:
        from proponent.lake import open as open_lake

        return open_lake(lake)
    import signal

    from proponent.results_files import open_results

    # Whoever ends the process should find nothing left of it: as Ctrl-C does, this unwinds.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return open_results(files, tell=lambda told: remark(told, quiet=quiet))


def _metrics(opened: "Lake") -> "Metrics | None":
    """Return what counts for Prometheus, None without the extra `telemetry`."""
    from proponent.observe.metrics import Metrics
    from proponent.schema.errors import InputError
    from proponent.store.readings import readings

    try:
        return Metrics(lambda: readings(opened.store.catalog))
    except InputError:
        return None


def _require_extra() -> None:
    """Raise InputError where the packages of the extra are missing."""
    from proponent.schema.errors import InputError

    try:
        import starlette
        import uvicorn
    except ModuleNotFoundError as error:
        raise InputError(f"the explorer needs {error.name}; pip install 'proponent[serve]'") from error
    _ = starlette, uvicorn


def _listen(settings: "ServeSettings") -> socket.socket:
    """Return a socket that listens. Raises InputError for a port that is taken, and an address of no use."""
    from proponent.schema.errors import InputError

    host = settings.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once only what it knows to be TCP; else a page waits 40 ms for word that its headers have come.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, settings.port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"port {settings.port} is taken; end what listens there, or take another with --port (0: a free one)"
            ) from error
        if error.errno == errno.EACCES:
            raise InputError(f"port {settings.port} is for the administrator; take one above 1023") from error
        raise InputError(
            f"cannot listen on {host}: {error.strerror or error}; give an address of this machine"
        ) from error
    return listening


def _run(explorer: "Explorer", listening: socket.socket, *, show: str | None) -> None:
    """Serve until somebody ends it."""
    import contextlib
    import threading
    import webbrowser

    import uvicorn

    from proponent.query.web.app import make_app

    class Server(uvicorn.Server):
        """Tells those who watch a job that they should not wait."""

        def handle_exit(self, sig: int, frame: "FrameType | None") -> None:
            explorer.closing.set()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        make_app(explorer),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=_PATIENCE_S,
        limit_concurrency=500,
        h11_max_incomplete_event_size=1 << 16,
    )
    if show is not None:
        threading.Thread(target=webbrowser.open, args=(show,), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):  # the server has ended already, and hands the signal on
        Server(config).run(sockets=[listening])
