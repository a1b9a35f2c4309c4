"""What a trace was found with, and how to ask again: (label, value) rows of a report."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from proponent.schema.settings import (
    BM25,
    HYBRID,
    IDENTITY,
    METHODS_WITHOUT_CURVATURE,
    REFERENCE,
    ReportSettings,
    is_imported,
)
from proponent.store.runs import library_versions

from .content import TracedQuery

_CODES: Final = {"float16": "float16", "int8": "int8 with block scales", "int4": "int4 with block scales"}
_MOMENTS: Final = {
    "adam": "of every weight, from the optimizer",
    "adam-factored": "by rows and columns, from the optimizer",
    "adafactor": "by rows and columns, from the optimizer",
    "estimated": "by rows and columns, from a sample of the corpus",
    "none": "gradients are not corrected",
}

_NAMED: Final = 3

Fact = Mapping[str, Any]
Rows = tuple[tuple[str, str], ...]


def provenance(fact: Fact) -> Rows:
    """List what a trace's hits were found with, from its row in the catalog (`report_trace.sql`)."""
    made_with = fact["settings"]
    return (
        ("Snapshot searched", str(fact["snapshot"])),
        *(_encoded(fact) if fact["encoder"] else ()),
        *((("Words", _words(made_with["tokenizer"])),) if "tokenizer" in made_with else ()),
        ("Method", fact["method"]),
        *((("Read from", f"{read['file']}, form {read['form']}"),) if (read := made_with.get("imported")) else ()),
        ("Versions", ", ".join(f"{name} {version}" for name, version in made_with["versions"].items())),
    )


def again(fact: Fact) -> Rows:
    """List the command that asks a trace's question again, where it fits into a line, and the SQL of its hits."""
    trace_id = fact["trace_id"]
    hits = f"SELECT * FROM influence WHERE trace_id = '{trace_id}' ORDER BY side DESC, rank"  # noqa: S608
    asks_again = fact["parts"] is None and not is_imported(fact["method"])
    return (*((("Asked again by", _command(fact)),) if asks_again else ()), ("Hits as SQL", hits))


def report_rows(lake: str, queries: Sequence[TracedQuery], settings: ReportSettings) -> Rows:
    """List what a report's traces were found with, each row once, and what makes and checks the report."""
    rows = dict.fromkeys([("Lake", lake), *(row for query in queries for row in query.provenance)])
    ids = " ".join(query.trace_id for query in queries[:_NAMED]) + (" ..." if len(queries) > _NAMED else "")
    own = (
        ("Report written by", f"proponent {library_versions()['proponent']}"),
        ("Made again by", f"proponent report LAKE {ids}{_options(settings)} -o FILE"),
        ("Checked by", "proponent report LAKE --verify FILE"),
    )
    return (*rows, *own, *(row for query in queries[:_NAMED] for row in query.again))


def _options(settings: ReportSettings) -> str:
    flags = {
        "compare": " --compare",
        "groups": " --no-groups",
    }
    return "".join(flags.get(name, f" --{name} {shlex.quote(str(value))}") for name, value in settings.chosen().items())


def _command(fact: Fact) -> str:
    options = {
        "--prompt": fact["prompt"],
        "--target": fact["target"],
        "-k": fact["k"],
        "--filter": fact["filter"],
        "--method": fact["method"],
        "--fuse": fact["settings"]["fused"]["method"] if fact["method"] == HYBRID else None,
        "--rank-constant": fact["settings"].get("rank_constant"),
        "--encoder": fact["encoder"],
        "--curvature": None if _has_own_curvature(fact) else fact["curvature"],
        "--at": fact["snapshot"],
    }
    words = [word for name, value in options.items() if value is not None for word in (name, shlex.quote(str(value)))]
    return " ".join(["proponent trace LAKE", *words, *([] if fact["exact"] else ["--approximate"])])


def _has_own_curvature(fact: Fact) -> bool:
    return fact["method"] == BM25 or fact["method"] in METHODS_WITHOUT_CURVATURE or fact["curvature"] == REFERENCE


def _encoded(fact: Fact) -> Rows:
    """List which model and encoder the gradients are of."""
    made_with = fact["settings"]
    codes = made_with.get("codes", "int8")  # traces from before there were others do not say
    diagnostics = json.loads(fact["curvature_diagnostics"] or "{}")
    given = json.loads(fact["encoder_settings"])
    settings = sorted((name, value) for name, value in given.items() if value is not None)
    return (
        ("Model", f"{fact['model']}: {fact['architecture']}, {fact['n_parameters']:,} parameters"),
        ("Weights", fact["weights_hash"]),
        ("Tokenizer", fact["tokenizer_hash"]),
        ("Optimizer state", fact["moments_hash"] or "none registered"),
        ("Encoder", f"{fact['encoder']} ({fact['encoder_id']}), d = {fact['dim']:,}"),
        ("Encoder settings", ", ".join(f"{name} {value}" for name, value in settings)),
        ("Stored vectors", _stored(codes, made_with.get("fidelity") or {})),
        ("Second moments", f"{fact['moments']}: {_MOMENTS[fact['moments']]}"),
        ("Parameters seen", f"attention and MLP matrices, {fact['coverage']:.1%} of all"),
        ("Curvature", _curvature(fact, diagnostics)),
    )


def _words(tokenizer: Mapping[str, Any]) -> str:
    told = ", ".join(f"{name} {value}" for name, value in sorted(tokenizer.items()))
    return f"BM25 of Lance (k1 1.2, b 0.75); {told}"


def _stored(codes: str, fidelity: Mapping[str, Any]) -> str:
    if fidelity.get("codes") != codes:
        return f"{_CODES[codes]}; what they lose was not measured before the trace"
    return (
        f"{_CODES[codes]}; they keep {fidelity['top10_overlap']:.1%} of the ten best that vectors in "
        f"{fidelity['against']} find, rank correlation {fidelity['rank_correlation']:.4f} "
        f"(sample of {fidelity['sample']:,})"
    )


def _curvature(fact: Fact, diagnostics: Mapping[str, Any]) -> str:
    if fact["curvature"] == IDENTITY:
        return "none"
    told = f"{fact['curvature']}, fitted on {fact['curvature_rows'] or 0:,}"
    if "queries" in diagnostics:
        return f"{told} queries, lambda {fact['curvature_mixing']:.3g} ({diagnostics['mixing_chosen']})"
    shrinkage = ", ".join(f"{weight:.2f}" for weight in diagnostics.get("rho", []))
    return f"{told} passages, {diagnostics.get('shrinkage', 'no')} shrinkage {shrinkage}"
