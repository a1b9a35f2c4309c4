"""`proponent ingest`: corpora into a lake."""

from pathlib import Path
from typing import Any

import click

from .options import lake_argument, output_options
from .output import emit, remark
from .progress import progress

_FIELDS = ("id", "text", "source", "date", "title", "url", "author", "language", "license", "entities")


def _field_options(command: Any) -> Any:
    for name in reversed(_FIELDS):
        option = click.option(
            f"--{name}", f"field_{name}", metavar="FIELD", help=f"Field of the rows that is the {name} [{name}]."
        )
        command = option(command)
    return command


@click.command()
@lake_argument
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--corpus", required=True, help="Name of the corpus; ids are unique within it.")
@_field_options
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
@output_options
def ingest(
    lake: Path,
    files: tuple[Path, ...],
    corpus: str,
    tokenizer: Path | None,
    max_tokens: int | None,
    max_rejects: float,
    form: str | None,
    output: Path | None,
    quiet: bool,
    **fields: str | None,
) -> None:
    """Add or update the documents of JSON Lines and Parquet files.

    Every row becomes a document, cut at sentence ends into passages that fit the model. The same rows again change
    nothing; a known id with other content replaces the document. Fields that no option names are kept as metadata.

    \b
    Example:
      proponent ingest mylake news.jsonl --corpus news --id key --date day
    """
    import pyarrow as pa

    from proponent.lake import open as open_lake

    named = {name.removeprefix("field_"): field for name, field in fields.items() if field is not None}
    with open_lake(lake) as opened, progress("reading", quiet=quiet) as advance:
        counts = opened.ingest(
            files,
            corpus=corpus,
            tokenizer=tokenizer,
            max_tokens=max_tokens,
            max_reject_share=max_rejects,
            progress=advance,
            **named,
        )
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
    if form or output:
        row = {name: value for name, value in vars(counts).items() if name != "reject_reasons"}
        emit(pa.Table.from_pylist([row]), form=form, output=output)
