"""`proponent init`, `status` and `migrate`: the lake as a whole."""

from datetime import timedelta
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import lake_argument, metrics_option, output_options, quiet_option, serving_metrics
from .output import emit, remark, told_fidelity, told_index

if TYPE_CHECKING:
    from proponent.schema.settings import MetricsSettings


@click.command()
@lake_argument
@click.option("--catalog", metavar="URL", help="SQLAlchemy URL of the catalog; by default SQLite inside the lake.")
@quiet_option
def init(lake: Path, catalog: str | None, quiet: bool) -> None:
    """Make a lake in a new folder, or finish one whose making was cut short.

    \b
    Example:
      proponent init mylake
    """
    from proponent.lake import init as make
    from proponent.store.lake import DEFAULT_CATALOG

    make(lake, catalog=catalog or DEFAULT_CATALOG).close()
    remark(f"made lake {lake}", quiet=quiet)


def _finite(_context: click.Context, _parameter: click.Parameter, seconds: float | None) -> float | None:
    """Refuse nan and inf, which no range does. Raises BadParameter."""
    if seconds is not None and not isfinite(seconds):
        raise click.BadParameter("write seconds, as 5 or 0.5")
    return seconds


@click.command()
@lake_argument
@click.option(
    "--watch",
    type=click.FloatRange(min=0.2),
    callback=_finite,
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="Show runs at work and their workers again and again, every 2 seconds unless told otherwise.",
)
@output_options
def status(lake: Path, watch: float | None, form: str | None, output: Path | None, quiet: bool) -> None:
    """Show what is in a lake: corpora, models, encoders, rows of every table.

    With --watch it shows who works on the lake and how fast, until Ctrl-C: drawn anew in a terminal, a line for every
    run and every worker elsewhere.

    \b
    Examples:
      proponent status mylake
      proponent status mylake --watch 5
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake

    if watch is not None:
        from .watch import watch_lake

        if form or output:
            raise click.UsageError("--watch shows lines; take --format and -o without it")
        with open_lake(lake) as opened:
            watch_lake(opened, every_s=watch)
        return
    with open_lake(lake) as opened:
        facts = opened.status()
    if form == "json" or (output is not None and output.suffix == ".json"):
        emit(pa.Table.from_pylist([facts]), form="json", output=output)
        return
    rows = facts.pop("rows")
    encoders, at_work = facts.pop("encoders"), facts.pop("at_work")
    table = [{"what": key, "value": _plain(value)} for key, value in facts.items()]
    table += [{"what": f"{run['kind']} of {run['subject']}", "value": _told_run(run)} for run in at_work]
    for encoder in encoders:
        fidelity, indexed = told_fidelity(encoder.pop("fidelity")), encoder.pop("index")
        told = ", ".join(f"{key} {_plain(value)}" for key, value in encoder.items() if key != "encoder")
        table.append({"what": f"encoder {encoder['encoder']}", "value": f"{told}, {fidelity}"})
        if indexed:
            table.append({"what": f"index of {encoder['encoder']}", "value": told_index(indexed)})
    table += [{"what": f"table {name}", "value": f"{count:,} rows"} for name, count in rows.items()]
    emit(pa.Table.from_pylist(table), form=form, output=output)


def _told_run(run: dict[str, Any]) -> str:
    told = [f"at work: {run['units_done']:,} of {run['units_total']:,} units done"]
    if done := run["throughput"]:
        speed = f" at {done['per_second']:,.1f} a second" if done["per_second"] else ""
        told.append(f"{done['n']:,} {done['what']}{speed}")
    if run["left_s"] is not None:
        told.append(f"about {timedelta(seconds=round(run['left_s']))} left")
    workers = ", ".join(f"{one['n']} on {machine}" for machine, one in run["workers"].items())
    return ", ".join(told) + (f"; workers: {workers}" if workers else "; nobody works on it")


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:.1%}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@click.command()
@lake_argument
@click.option("--check", is_flag=True, help="Only say whether anything is to be done; exit with 1 if so.")
@quiet_option
def migrate(lake: Path, check: bool, quiet: bool) -> None:
    """Bring the catalog and the tables of a lake to the form of this version of proponent.

    Cut short, it goes on when it is started again. A downgrade is a restore from a backup.

    \b
    Example:
      proponent migrate mylake --check
    """
    from proponent.lake import migrate as bring_up_to_date
    from proponent.lake import open as open_lake

    done = [] if check else bring_up_to_date(lake)
    open_lake(lake).close()
    changed = f"; tables: {', '.join(done)}" if done else ""
    remark(f"the catalog and the tables of {lake} are up to date{changed}", quiet=quiet)


@click.command()
@lake_argument
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that work on this machine."
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    callback=_finite,
    default=0,
    show_default=True,
    help="Seconds to wait for a run that has something to do.",
)
@metrics_option
@quiet_option
def work(lake: Path, workers: int, wait: float, metrics: "MetricsSettings | None", quiet: bool) -> None:
    """Help with ingests and encodings that other machines have begun.

    The lake is in an object store or a shared folder, its catalog on PostgreSQL. Units are taken where they wait, or
    where their worker has died; what comes out is published by who began the run. The corpus's files, the checkpoint
    and the versions of the libraries have to be those of the machine that began.

    \b
    Example:
      proponent work s3://bucket/lake --workers 8 --wait 600
    """
    from proponent.lake import open as open_lake

    with open_lake(lake) as opened, serving_metrics(opened.store, metrics, quiet=quiet):
        helped = opened.work(workers=workers, wait=wait)
    remark(f"worked on {len(helped['runs'])} runs", quiet=quiet)
    for run_id, why in helped["left_alone"].items():
        remark(f"left run {run_id} alone: {why}", quiet=quiet)
