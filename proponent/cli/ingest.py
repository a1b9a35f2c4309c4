"""`proponent ingest`: corpora into a lake."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .duplicates import mark
from .options import engine_options, lake_argument, metrics_option, output_options, serving_metrics
from .output import emit, printable, remark
from .progress import run_progress

if TYPE_CHECKING:
    from proponent.ingest.corpus import Counts
    from proponent.ingest.preview import Preview
    from proponent.lake import Lake
    from proponent.schema.settings import MetricsSettings

_FIELDS = ("id", "text", "source", "date", "title", "url", "author", "language", "license", "entities", "trained_on")
_SAYS = {"trained_on": "says whether the model was trained on it"}
_SHOWN_ROWS = 10
_SHOWN_CHARACTERS = 160


def _field_options(command: Any) -> Any:
    for name in reversed(_FIELDS):
        option = click.option(
            f"--{name.replace('_', '-')}",
            f"field_{name}",
            metavar="FIELD",
            help=f"Field, template or constant (=...) that {_SAYS.get(name, f'is the {name}')} [{name}].",
        )
        command = option(command)
    return command


@click.command()
@lake_argument
@click.argument("files", nargs=-1, required=True)
@click.option("--corpus", required=True, help="Name of the corpus; ids are unique within it.")
@_field_options
@click.option(
    "--fields",
    "fields_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='TOML file with lines such as title = "headline", for what no option names.',
)
@click.option("--split-entities", metavar="SEP", help="What separates the entities of one text, such as ';'.")
@click.option("--reader", metavar="NAME", help="Format of the files; by default their names and contents say it.")
@click.option("--separator", metavar="LINE", help="Line between two documents of a text file; '' is a blank line.")
@click.option("--max-row-bytes", type=int, help="Size above which a row is rejected; by default 64 MiB.")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Checkpoint whose tokenizer measures passages; by default the only registered model's.",
)
@click.option("--max-tokens", type=int, help="Longest passage in tokens; by default the model's context.")
@click.option(
    "--max-rejects", type=float, default=0.1, show_default=True, help="Share of rejected rows that stops a run."
)
@click.option("--overlap", type=int, help="Most tokens of whole sentences that a passage repeats of the one before.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes that read and cut; by default 1, on Ray one for each CPU.",
)
@engine_options
@click.option("--near-duplicates", is_flag=True, help="Afterwards, do what `proponent duplicates` does.")
@click.option("--dry-run", is_flag=True, help="Show the first documents as they would be stored, and write nothing.")
@metrics_option
@output_options
def ingest(
    lake: Path,
    files: tuple[str, ...],
    corpus: str,
    fields_file: Path | None,
    max_rejects: float,
    workers: int | None,
    engine: str,
    ray_address: str | None,
    near_duplicates: bool,
    dry_run: bool,
    metrics: "MetricsSettings | None",
    form: str | None,
    output: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Add or update the documents of corpus files.

    FILES are names, patterns, folders, URLs, or - for stdin. They may be JSON Lines, JSON, CSV, TSV, Parquet, Arrow,
    text, WARC or Hugging Face datasets on disk, compressed with gzip, zstd, bzip2 or xz.

    Every row becomes a document, cut at sentence ends into passages that fit the model. The same rows again change
    nothing; a known id with other content replaces the document. Fields that no option names are kept as metadata. A
    field may be nested (meta.url), a template ('{title} ({year})') or a constant (=wikipedia).

    \b
    Examples:
      proponent ingest mylake news.jsonl --corpus news --id key --date day
      proponent ingest mylake 'crawl/**/*.csv.gz' --corpus crawl --source =crawl --dry-run
    """
    from proponent.ingest.fields import read_fields
    from proponent.lake import open as open_lake

    named = read_fields(fields_file) if fields_file else {}
    named |= {
        name.removeprefix("field_"): value
        for name, value in options.items()
        if name.startswith("field_") and value is not None
    }
    given = {name: value for name, value in options.items() if not name.startswith("field_") and value is not None}
    with open_lake(lake, engine="local" if dry_run else engine, ray_address=ray_address) as opened:
        if dry_run:
            _show(opened.preview(files, corpus=corpus, rows=_SHOWN_ROWS, **given, **named), form, output, quiet=quiet)
            return
        given |= {"corpus": corpus, "max_reject_share": max_rejects, "workers": workers}
        with serving_metrics(opened.store, metrics, quiet=quiet):
            counts = _ingest(opened, files, quiet=quiet, **given, **named)
            _tell(counts, quiet=quiet)
            if near_duplicates:
                mark(opened, quiet=quiet)
    if form or output:
        import pyarrow as pa

        row = {name: value for name, value in vars(counts).items() if not isinstance(value, dict | list | str | None)}
        emit(pa.Table.from_pylist([row]), form=form, output=output)


def _ingest(lake: "Lake", files: tuple[str, ...], *, quiet: bool, **settings: Any) -> "Counts":
    with run_progress(quiet=quiet) as tell:
        return lake.ingest(files, progress=tell, **settings)


def _tell(counts: "Counts", *, quiet: bool) -> None:
    withdrawn = f", {counts.withdrawn} left out since they were withdrawn" if counts.withdrawn else ""
    remark(
        f"read {counts.read} rows: {counts.added} added, {counts.updated} updated, {counts.unchanged} unchanged, "
        f"{counts.duplicates} duplicates, {counts.rejected} rejected{withdrawn}; {counts.passages} new passages",
        quiet=quiet,
    )
    for reason, count in sorted(counts.reject_reasons.items(), key=lambda item: -item[1])[:5]:
        remark(f"  rejected {count}: {reason}", quiet=quiet)
    if counts.rejected:
        remark("  see them with: SELECT file, row, reason FROM rejects", quiet=quiet)
    if counts.unread_dates:
        example = printable(repr(counts.first_unread_date))
        remark(f"  dates not understood, kept as text: {counts.unread_dates}, such as {example}", quiet=quiet)
    _tell_skipped(counts.skipped_files, quiet=quiet)


def _tell_skipped(names: list[str], *, quiet: bool) -> None:
    if names:
        some = ", ".join(map(printable, names[:5])) + (", ..." if len(names) > 5 else "")
        remark(f"  files of no known format, not read: {len(names)} ({some})", quiet=quiet)


def _show(found: "Preview", form: str | None, output: Path | None, *, quiet: bool) -> None:
    """Print the documents of a dry run, and say what would be rejected."""
    import pyarrow as pa

    if form in (None, "table") and output is None:
        for document in found.documents:
            click.echo("\n".join(f"{name:<20}{_shown(value)}" for name, value in document.items() if value))
            click.echo()
    elif found.documents:
        emit(pa.Table.from_pylist(found.documents), form=form, output=output)
    remark(
        f"the first {found.read} rows: {len(found.documents)} would be documents, {len(found.rejects)} rejected; "
        "nothing was written",
        quiet=quiet,
    )
    for reject in found.rejects:
        remark(f"  rejected: {printable(reject)}", quiet=quiet)
    _tell_skipped(found.skipped_files, quiet=quiet)


def _shown(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, list) else str(value)
    line = printable(" ".join(text.split()))
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"
