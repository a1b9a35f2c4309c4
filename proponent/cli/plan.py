"""`proponent plan`: what encoding and asking will take, before anything is paid."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from proponent.schema.settings import CODES, DEFAULT_CODES, MOMENTS

from .options import LakeName, output_options
from .output import emit, remark

if TYPE_CHECKING:
    from proponent.plan.costs import Line

_HERE: Final = "here"
_STEPS: Final = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


class Number(click.ParamType[int]):
    """A count, as 135M or 8B."""

    name = "number"
    _UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """Return the number."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmbt]?)", str(value).strip().lower().replace("_", ""))
        if match is None or float(match[1]) <= 0:
            self.fail(f"{value!r} is no number; write 135M, 8B or 160000", parameter, context)
        return round(float(match[1]) * self._UNITS[match[2]])


@click.command()
@click.argument("lake", type=LakeName(), required=False)
@click.option("--model", metavar="NAME|PATH", help="The lake's model by name; without a lake, a checkpoint's folder.")
@click.option("--parameters", type=Number(), help="Without a checkpoint: a Llama of about so many weights, as 8B.")
@click.option("--tokens", type=Number(), help="Tokens to encode, as 160B; by default those of the lake's texts.")
@click.option("--passage-tokens", type=int, help="Tokens of a passage; by default the lake's mean, or 256.")
@click.option("--side", type=int, default=0, help="Side of a projected gradient (s); by default as `encode` has it.")
@click.option("--blocks", type=int, default=0, help="Groups of neighbouring layers (B); by default as `encode` has it.")
@click.option("--moments", type=click.Choice(MOMENTS), default="file", show_default=True, help="Second moments.")
@click.option("--codes", type=click.Choice(CODES), default=DEFAULT_CODES, show_default=True, help="Stored codes.")
@click.option("--questions", type=Number(), default=1000, show_default=True, help="Questions to ask.")
@click.option("--batch", type=int, default=100, show_default=True, help="Questions that share one scan.")
@click.option("--machine", default=_HERE, show_default=True, help="Machine of the table; `here` is measured for 10 s.")
@click.option("--devices", type=int, default=1, show_default=True, help="How many of them.")
@click.option("--use", type=float, help="Share of a table's machine's peak that encoding reaches.")
@click.option("--price", type=float, help="Money for an hour of one device.")
@click.option(
    "--machines", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="TOML file of your own machines."
)
@output_options
def plan(
    lake: Path | None,
    model: str | None,
    parameters: int | None,
    tokens: int | None,
    passage_tokens: int | None,
    side: int,
    blocks: int,
    moments: str,
    codes: str,
    questions: int,
    batch: int,
    machine: str,
    devices: int,
    use: float | None,
    price: float | None,
    machines: Path | None,
    form: str | None,
    output: Path | None,
    quiet: bool,
) -> None:
    """Tell what encoding a corpus and asking it will take: operations, bytes, time and money, with the formulas.

    With a lake, its texts and its model are counted; without one, say how large both will be. Nothing is stored.

    \b
    Examples:
      proponent plan mylake
      proponent plan --parameters 8B --tokens 160B --passage-tokens 512 --side 64 --blocks 8 --machine h100 --devices 64
    """
    from proponent.plan.asked import Asked

    if devices < 1:
        raise click.UsageError("--devices must be at least 1")
    asked = Asked(
        lake=lake,
        model=model,
        parameters=parameters,
        tokens=tokens,
        passage_tokens=passage_tokens,
        encoder={"side": side, "blocks": blocks, "moments": moments},
        workload={"codes": codes, "questions": questions, "batch": batch},
        machine=machine,
        devices=devices,
        use=use,
        price=price,
        machines=machines,
    )
    found, told = asked.plan(tell=lambda step: remark(f"measuring this machine: {step}", quiet=quiet))
    remark(told, quiet=quiet)
    _print(found, form, output)


def _print(found: "list[Line]", form: str | None, output: Path | None) -> None:
    import pyarrow as pa

    rows = [vars(line) for line in found]
    if form in (None, "table", "md") and (output is None or output.suffix in ("", ".txt", ".md")):
        shown = [
            {"step": row["step"], "what": row["quantity"], "value": readable(row["value"], row["unit"])}
            | {"formula": row["formula"]}
            for row in rows
        ]
        emit(pa.Table.from_pylist(shown), form=form, output=output)
        return
    emit(pa.Table.from_pylist(rows), form=form, output=output)


def readable(value: float, unit: str) -> str:
    """Return a quantity with three digits, as people say it."""
    if unit == "$":
        return f"$ {value:,.2f}" if value < 1000 else f"$ {value:,.0f}"
    if unit == "s":
        return duration(value)
    if unit in ("FLOP", "B"):
        size, letter = next(((size, letter) for size, letter in _STEPS if value >= size), (1, ""))
        return f"{value / size:.3g} {letter}{unit}" if value < 1e18 else f"{value:.3g} {unit}"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    for size, unit in ((86_400 * 365, "years"), (86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{seconds * 1000:.3g} ms"
