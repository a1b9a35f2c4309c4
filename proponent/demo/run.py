"""The demonstration: from nothing to a report, on real text, with a model that learned it.

Notable: every step first looks whether it is done, so a demonstration that was killed is finished by starting it again,
and one that is finished changes nothing. What it prints beside each step is the command that does the same.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from proponent.ingest.progress import Tell, tell_nobody
from proponent.lake import Lake, init
from proponent.lake import open as open_lake
from proponent.query.evaluate.metrics import recall, reciprocal_rank
from proponent.schema.errors import InputError, LakeHalfMadeError, LakeNotFoundError
from proponent.schema.settings import RAY, EncoderSettings
from proponent.store.catalog import catalog_name
from proponent.store.full_text import has_full_text
from proponent.store.lake import DEFAULT_CATALOG
from proponent.store.place import LakePath, StrPath, lake_path

if TYPE_CHECKING:
    from .factbook import Fact

CHECKPOINT: Final = Path(__file__).parent / "checkpoint"
CORPUS: Final = "factbook"
BASELINE: Final = "factbook_plain"
_SIZE: Final = EncoderSettings(blocks=2, side=32)
"""Enough for sentences so short, and a third of the time and the bytes of what the model's layers would give."""
SHOWN: Final = (("France", "capital"), ("Japan", "currency"), ("Brazil", "language"))
N_COUNTRIES: Final = 50
QUERIES: Final = (
    (
        "Which parts of the almanac taught the model its answers? Proponents by source:",
        "SELECT source, count(*) AS proponents, round(sum(score), 1) AS influence\n"
        "FROM influence WHERE side = 'proponent' AND method = 'trackstar' AND filter IS NULL AND exact\n"
        "GROUP BY source ORDER BY influence DESC",
    ),
    (
        "Strongest proponents in the section on the economy whose text is about 2023 or later:",
        "SELECT round(score, 3) AS score, prompt, target, published, text\n"
        "FROM influence WHERE side = 'proponent' AND method = 'trackstar' AND filter IS NULL AND exact\n"
        "AND source = 'Economy' AND published >= DATE '2023-01-01'\n"
        "ORDER BY influence.score DESC, trace_id LIMIT 5",
    ),
    (
        "Whose answers do passages about France push, and which way?",
        "SELECT side, prompt, target, round(score, 3) AS score, title\n"
        "FROM influence WHERE list_contains(entities, 'France') AND prompt NOT LIKE 'France%'\n"
        "AND method = 'trackstar' AND filter IS NULL AND exact\n"
        "ORDER BY abs(influence.score) DESC, trace_id LIMIT 5",
    ),
)
"""Three questions in SQL, by source, date and entity."""

Echo = Callable[[str], object]
Bar = Callable[[str], AbstractContextManager[Callable[[int], object]]]
"""Makes a progress bar: a context whose value is told how much was done since the last call."""


class Accuracy(NamedTuple):
    """How well traces find the passages that state the facts."""

    n_facts: int
    top_10: float
    """Share of facts with a stating passage among the first ten proponents."""
    mrr: float
    """Mean reciprocal rank of the first such passage, counting it as never found beyond rank ten."""


class Outcome(NamedTuple):
    """What a demonstration measured."""

    whole: Accuracy
    """TrackStar over all passages."""
    subset: Accuracy
    """TrackStar over the passages of some countries."""
    baseline: Accuracy
    """The plain gradient dot product over those."""
    report: Path


Watch = Callable[[], AbstractContextManager[Tell]]
"""Makes a display of how far workers are."""


def _no_watch() -> AbstractContextManager[Tell]:
    return nullcontext(tell_nobody)


def _no_bar(_label: str) -> AbstractContextManager[Callable[[int], object]]:
    return nullcontext(lambda _n: None)


def run(
    folder: Path,
    *,
    lake: StrPath | None = None,
    catalog: str | None = None,
    engine: str = "local",
    ray_address: str | None = None,
    train: bool = False,
    echo: Echo = print,
    bar: Bar = _no_bar,
    watch: Watch = _no_watch,
) -> Outcome:
    """Run, or finish, the demonstration in a folder: `folder/lake`, the reports, and `folder/facts.jsonl`.

    `lake` may name another place for the lake, and `catalog` its database, as for `init`; `engine` and `ray_address`
    are as for `open`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    place = lake_path(folder / "lake") if lake is None else lake_path(lake)
    with _lake(place, echo, catalog=catalog, engine=engine, ray_address=ray_address) as opened:
        outcome = _job(opened, folder, train=train, echo=echo, bar=bar, watch=watch)
    echo(f"\nDone in {time.monotonic() - started:.0f} s. The report: {outcome.report}")
    echo(f'Ask more: proponent trace {place} --prompt "Peru. Capital:"')
    return outcome


def _job(lake: Lake, folder: Path, *, train: bool, echo: Echo, bar: Bar, watch: Watch) -> Outcome:
    _require_same_model(lake, folder, train=train)
    checkpoint = _checkpoint(folder, train=train, echo=echo, bar=bar)
    _fill(lake, folder, checkpoint, echo, watch)
    facts = _facts_of_some_countries(lake)
    _write_facts(folder / "facts.jsonl", facts)
    return _trace(lake, folder, facts, echo)


@contextmanager
def _lake(place: LakePath, echo: Echo, *, catalog: str | None, engine: str, ray_address: str | None) -> Iterator[Lake]:
    opened = partial(open_lake, place, catalog=catalog, engine=engine, ray_address=ray_address)
    try:
        lake = opened()
    except (LakeNotFoundError, LakeHalfMadeError):
        echo(f"$ proponent init {place}" + (f" --catalog {catalog_name(catalog)}" if catalog else ""))
        init(place, catalog=catalog or DEFAULT_CATALOG).close()
        lake = opened()
    with lake:
        yield lake


def _how(lake: Lake) -> str:
    """Return what the commands that are shown say of the engine."""
    return "" if lake.store.cluster is None else f" --engine {RAY}"


def _checkpoint(folder: Path, *, train: bool, echo: Echo, bar: Bar) -> Path:
    if not train:
        return CHECKPOINT
    trained = folder / "checkpoint"
    if not (trained / "model.safetensors").is_file():
        from .train import train as train_model

        echo("training the model: a few minutes on two cores")
        partial = folder / f"checkpoint.{os.getpid()}.partial"
        with bar("training") as advance:
            train_model(partial, progress=lambda _step, _steps, _loss: advance(1))
        partial.rename(trained)
    return trained


def _require_same_model(lake: Lake, folder: Path, *, train: bool) -> None:
    registered = lake.sql("SELECT path FROM models WHERE name = ?", [CORPUS]).to_dicts()
    if registered and train != (Path(registered[0]["path"]) == (folder / "checkpoint").resolve()):
        begun = "without" if train else "with"
        raise InputError(f"{folder} was begun {begun} --train; name a new folder, or leave --train as it was")


def _fill(lake: Lake, folder: Path, checkpoint: Path, echo: Echo, watch: Watch) -> None:
    known = lake.status()
    with _step(echo, f"proponent model add {lake.store.root} {checkpoint} --name {CORPUS}"):
        lake.add_model(checkpoint, name=CORPUS)
    if CORPUS not in known["corpora"]:
        rows = _shared(lake, _write_corpus(folder / "factbook.jsonl"))
        command = f"proponent ingest {lake.store.root} {rows} --corpus {CORPUS}{_how(lake)}"
        with _step(echo, command), watch() as tell:
            counts = lake.ingest(rows, corpus=CORPUS, progress=tell)
        echo(f"  {counts.added:,} documents, {counts.passages:,} passages")
    size = f"--blocks {_SIZE.blocks} --side {_SIZE.side}"
    with _step(echo, f"proponent encode {lake.store.root} --model {CORPUS} {size}{_how(lake)}"), watch() as tell:
        lake.encode(CORPUS, settings=_SIZE, progress=tell)
    where = _only_some_countries()
    plain = replace(_SIZE, moments="none")
    command = f"proponent encode {lake.store.root} --encoder {BASELINE} --moments none {size} --only ...{_how(lake)}"
    with _step(echo, command), watch() as tell:
        lake.encode(CORPUS, encoder=BASELINE, settings=plain, only=where, progress=tell)
    if not has_full_text(lake.store, lake.snapshot):
        lake.index_text()  # before the questions, so that a report of them can show the passages that share their words


@contextmanager
def _step(echo: Echo, command: str) -> Iterator[None]:
    started = time.monotonic()
    echo(f"$ {command}")
    yield
    echo(f"  {time.monotonic() - started:.1f} s")


def _write_corpus(path: Path) -> Path:
    from .factbook import documents

    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(document, ensure_ascii=False) + "\n" for document in documents())
    return partial.replace(path)


def _shared(lake: Lake, rows: Path) -> str:
    """Return where the nodes of a cluster, too, find a file: beside a lake in an object store.

    Raises InputError for a lake that has the whole bucket for itself.
    """
    root = lake.store.root
    if lake.store.cluster is None or isinstance(root, Path):
        return str(rows)
    if root.parent == root:
        raise InputError(f"{root} leaves no room beside it for the corpus; name a prefix in the bucket, {root}/lake")
    shared = root.parent / rows.name
    shared.upload(rows)
    return str(shared)


def _write_facts(path: Path, facts: Sequence["Fact"]) -> None:
    """Write the facts in the form that `proponent evaluate` reads."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for fact in facts:
            row = {"prompt": fact.prompt, "target": fact.target, "relation": fact.relation, "subject": fact.country}
            file.write(json.dumps({**row, "doc_keys": fact.gold}, ensure_ascii=False) + "\n")
    partial.replace(path)


@cache
def _some_countries() -> frozenset[str]:
    """Return the codes of every so-manieth country."""
    from .factbook import documents

    codes = sorted({document["id"][:2] for document in documents()})
    return frozenset(codes[:: len(codes) // N_COUNTRIES][:N_COUNTRIES])


def _only_some_countries() -> str:
    """Return the filter for their documents."""
    return f"substr(doc_key, 1, 2) IN ({', '.join(repr(code) for code in sorted(_some_countries()))})"


def _facts_of_some_countries(lake: Lake) -> list["Fact"]:
    """Return the facts about some countries that the model completes correctly, those to be shown first."""
    from .completions import completes
    from .factbook import facts

    codes = _some_countries()
    shown = {pair: place for place, pair in enumerate(SHOWN)}
    asked = [fact for fact in facts() if fact.gold[0][:2] in codes or (fact.country, fact.relation) in shown]
    loaded = lake.model(CORPUS)
    right = completes(loaded.model, loaded.tokenizer, asked)
    known = [fact for fact, correct in zip(asked, right, strict=True) if correct]
    return sorted(known, key=lambda fact: shown.get((fact.country, fact.relation), len(shown)))


def _trace(lake: Lake, folder: Path, facts: Sequence["Fact"], echo: Echo) -> Outcome:
    pairs = [(fact.prompt, fact.target) for fact in facts]
    command = f"proponent trace {lake.store.root} --queries ...{_how(lake)}"
    with _step(echo, f"{command} ({len(facts)} facts that the model knows)"):
        ids = lake.trace_all(pairs, encoder=CORPUS, query_set="facts")
    for trace_id in ids[: len(SHOWN)]:
        _show(lake, trace_id, echo)
    filtered = lake.trace_all(pairs[:1], encoder=CORPUS, filter="source <> 'Government' AND entity('France')", k=3)
    echo("\nThe first question again, among passages about France outside the section on government:")
    _show(lake, filtered[0], echo)
    for question, query in QUERIES:
        echo(f'\n{question}\n$ proponent sql {lake.store.root} "..."\n{_indented(query)}')
        _table(lake, query, echo)
    if _index(lake) is None:
        lake.index(CORPUS)
        echo(f"\n$ proponent index {lake.store.root} --encoder {CORPUS}")
    indexed = _index(lake)
    assert indexed is not None
    first = next(one for one in indexed["measured"] if one["method"] == "trackstar" and one["k"] == 10)
    echo(
        f"\nVector index over {indexed['rows']:,} encodings, recall@10 against the exact scan: "
        f"{first['proponents']:.3f} of proponents, {first['opponents']:.3f} of opponents"
    )
    near = lake.trace_all(pairs[:1], encoder=CORPUS, approximate=True)
    same = _same_proponents(lake, ids[0], near[0])
    echo(f"The first question through the index: {same} of 10 proponents are those of the exact scan")
    return _measure(lake, folder, facts, ids, echo)


def _measure(lake: Lake, folder: Path, facts: Sequence["Fact"], ids: Sequence[str], echo: Echo) -> Outcome:
    where = _only_some_countries()
    inside = [fact for fact in facts if fact.gold[0][:2] in _some_countries()]
    pairs = [(fact.prompt, fact.target) for fact in inside]
    subset = lake.trace_all(pairs, encoder=CORPUS, filter=where)
    plain = lake.trace_all(pairs, encoder=BASELINE, filter=where, method="graddot")
    lake.report(list(ids[: len(SHOWN)]), folder / "report.html", title="What taught the model these facts?")
    outcome = Outcome(
        whole=_accuracy(lake, facts, ids),
        subset=_accuracy(lake, inside, subset),
        baseline=_accuracy(lake, inside, plain),
        report=folder / "report.html",
    )
    lake.report(list(ids[: len(SHOWN)]), folder / "report.md", title="What taught the model these facts?")
    n_subset = lake.sql("SELECT max(n_candidates) AS n FROM traces WHERE trace_id = ?", [plain[0]]).to_dicts()[0]["n"]
    n_all = lake.sql("SELECT n_candidates AS n FROM traces WHERE trace_id = ?", [ids[0]]).to_dicts()[0]["n"]
    echo("\nHow often is the passage that states the fact among the first ten proponents?")
    for label, n_passages, accuracy in (
        ("TrackStar", n_all, outcome.whole),
        ("TrackStar", n_subset, outcome.subset),
        ("gradient dot product", n_subset, outcome.baseline),
    ):
        echo(
            f"  {label:21} among {n_passages:5,} passages: {accuracy.top_10:6.1%} of {accuracy.n_facts} facts, "
            f"mean reciprocal rank {accuracy.mrr:.3f}"
        )
    return outcome


def _accuracy(lake: Lake, facts: Sequence["Fact"], ids: Sequence[str]) -> Accuracy:
    rows = lake.sql(
        "SELECT trace_id, doc_key, rank FROM influence "
        "WHERE side = 'proponent' AND rank <= 10 AND trace_id IN (SELECT unnest($ids))",
        {"ids": list(ids)},
    )
    ranks: dict[tuple[str, str], int] = {(row.trace_id, row.doc_key): row.rank for row in rows}
    found = [
        sorted(ranks[trace_id, key] for key in fact.gold if (trace_id, key) in ranks)
        for trace_id, fact in zip(ids, facts, strict=True)
    ]
    return Accuracy(len(facts), fmean(recall(one, k=10) for one in found), fmean(map(reciprocal_rank, found)))


def _index(lake: Lake) -> dict[str, Any] | None:
    """Return what was measured of the index, or None while there is none."""
    [found] = [one["index"] for one in lake.status()["encoders"] if one["encoder"] == CORPUS]
    index: dict[str, Any] | None = found
    return index


def _same_proponents(lake: Lake, exact: str, approximate: str) -> int:
    rows = lake.sql(
        "SELECT count(*) AS n FROM hits AS a JOIN hits AS b USING (passage_id, side) "
        "WHERE a.trace_id = ? AND b.trace_id = ? AND side = 'proponent'",
        [exact, approximate],
    )
    return int(rows.to_dicts()[0]["n"])


def _show(lake: Lake, trace_id: str, echo: Echo) -> None:
    rows = lake.hits([trace_id]).to_dicts()
    if not rows:
        return
    echo(f"\n{rows[0]['prompt']}[{rows[0]['target']} ]")
    for side, sign in (("proponent", "+"), ("opponent", "-")):
        for row in [row for row in rows if row["side"] == side][: 3 if side == "proponent" else 1]:
            echo(f"  {sign}{row['rank']} {row['score']:+.3f}  {row['source']:18.18}  {row['text'][:80]}")


def _table(lake: Lake, query: str, echo: Echo) -> None:
    from proponent.cli.output import plain_table

    echo(_indented(plain_table(lake.sql(query).to_arrow()).rstrip()))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
