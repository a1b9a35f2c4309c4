"""A lake of a million passages: what every step takes, in seconds, memory and disk.

    python benchmarks/lake.py                       # a million passages, some ten minutes on two cores
    python benchmarks/lake.py --passages 20000
    python benchmarks/lake.py --keep /tmp/million    # leaves the lake there

Documents are generated: sources, languages and dates over five decades, entities by Zipf's law, one passage or a few
each. Their vectors are generated, too, with a spectrum that decays, and take the place of a model's gradients in an
otherwise real encoding run. Queries are encoded by a tiny random Llama. Every step is a process of its own, whose peak
memory is that of the process. Prints one JSON object as its last line.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

_PASSAGE_CHARS = 240
_SIDE = 8
"""Two blocks of two groups of 8 x 8: d = 256."""
_ENCODER = "tiny"
_QUESTIONS = (("The river runs through", " a quiet town"), ("In spring the", " market opens"), ("Nobody", " came"))
_FILTERS = {
    "one passage": "doc_key = 'doc-7'",
    "0.01 %": "entity('place-2000')",
    "1 %": "source = 'archive-0'",
    "50 %": "published >= DATE '2000-01-01'",
    "all": "length(text) > 0",
    "entities": "entity('place-0') AND NOT mention(entity = 'place-1' OR surface = 'x')",
}


# What is generated


def words(chance: random.Random) -> list[str]:
    """Return the language's words."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(5_000)]


def corpus_lines(n_passages: int) -> Iterator[str]:
    """Yield documents as JSON; they have about so many passages of up to _PASSAGE_CHARS characters."""
    chance = random.Random(0)  # noqa: S311  (the same corpus in every run)
    known = words(chance)
    sentences = [" ".join(chance.choices(known, k=chance.randint(8, 16))).capitalize() + "." for _ in range(50_000)]
    places = [f"place-{rank}" for rank in range(5_000)]
    zipf = np.cumsum(1 / np.arange(1, len(places) + 1)).tolist()
    sources = [f"{kind}-{number}" for number in range(20) for kind in ("news", "web", "books", "forum", "archive")]
    number = done = 0
    while done < n_passages:
        n_sentences = 1 if chance.random() < 0.9 else chance.randint(3, 12)
        done += 1 if n_sentences == 1 else round(n_sentences / 2.4)
        day = f"{chance.randint(1975, 2024)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
        row = {
            "id": f"doc-{number}",
            "text": " ".join([f"No. {number}.", *chance.choices(sentences, k=n_sentences)]),
            "source": chance.choice(sources),
            "date": day[: chance.choice((4, 7, 10, 10))] if chance.random() < 0.9 else None,
            "title": f"About {chance.choice(known)}" if chance.random() < 0.8 else None,
            "url": f"https://example.org/{number}",
            "language": chance.choices(("en", "fr", "de", "sw"), (70, 15, 10, 5))[0],
            "license": chance.choice(("CC0", "CC BY 4.0", "unknown")),
            "entities": sorted(set(chance.choices(places, cum_weights=zipf, k=chance.randint(0, 4)))),
            "section": chance.choice(("politics", "sport", "science")),
            "words": chance.randint(50, 900),
        }
        yield json.dumps(row) + "\n"
        number += 1


def write_checkpoint(folder: Path) -> None:
    """Write a tiny random Llama whose tokens are the language's words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    known = ["<s>", "</s>", "<unk>", *sorted(set(words(random.Random(0))))]  # noqa: S311
    special = dict(zip(("bos_token", "eos_token", "unk_token"), known, strict=False))
    vocabulary = {word: place for place, word in enumerate(known)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(known),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


class Generated:
    """Stands for an encoder whose vectors are drawn, with standard deviations that fall as 1 / sqrt(rank)."""

    def __init__(self, encoder: Any) -> None:
        self.projector = encoder.projector
        self.context_length = encoder.context_length
        self._draw = np.random.default_rng(0)
        dim = encoder.projector.settings.dim
        rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((dim, dim)))
        self._factors = (rotation / np.sqrt(np.arange(1, dim + 1))[:, None]).astype(np.float32)

    def encode(self, examples: list[Any], *, progress: Callable[[int], object]) -> Any:
        """Return as many vectors as there are examples."""
        import torch

        from proponent.encode.encoder import Encodings

        vectors = self._draw.standard_normal((len(examples), len(self._factors)), dtype=np.float32) @ self._factors
        progress(len(examples))
        return Encodings(torch.from_numpy(vectors), torch.ones(len(examples)))


# The steps, each of which runs in a process of its own


def _settings() -> Any:
    from proponent.schema.settings import EncoderSettings

    return EncoderSettings(blocks=2, side=_SIDE)


class Step:
    """What a step measures."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure the seconds of a with block."""
        started = time.perf_counter()
        yield
        self.found[name] = round(time.perf_counter() - started, 3)


def ingest(step: Step, folder: Path, _argument: str) -> None:
    """Make the lake and ingest the corpus."""
    import proponent

    with proponent.init(folder / "lake") as lake, step.timed("seconds"):
        counts = lake.ingest(folder / "corpus.jsonl", corpus="generated", max_chars=_PASSAGE_CHARS)
    assert counts.added == counts.read


def fit(step: Step, folder: Path, _argument: str) -> None:
    """Register the model and fit its encoder, which encodes nothing."""
    import proponent

    write_checkpoint(folder / "checkpoint")
    with proponent.open(folder / "lake") as lake, step.timed("seconds"):
        lake.add_model(folder / "checkpoint", name=_ENCODER)
        lake.encode(settings=_settings(), only="false")


def encode(step: Step, folder: Path, _argument: str) -> None:
    """Write an encoding of every passage, as a run does with one worker."""
    import proponent
    from proponent.encoders import encoder_row
    from proponent.ingest.encoding import encode_missing, load_encoder

    with proponent.open(folder / "lake") as lake:
        encoder = load_encoder(lake.store, encoder_row(lake.store, _ENCODER))
        with step.timed("seconds"):
            counts = encode_missing(lake.store, _ENCODER, lambda: Generated(encoder))  # type: ignore[arg-type, return-value]
    step.found["rows"] = counts.encoded


def encode_nothing(step: Step, folder: Path, _argument: str) -> None:
    """Ask for the encoding of what is encoded already."""
    import proponent

    with proponent.open(folder / "lake") as lake, step.timed("seconds"):
        assert lake.encode(settings=_settings()).encoded == 0


def index(step: Step, folder: Path, _argument: str) -> None:
    """Build the index and measure its recall."""
    import proponent

    with proponent.open(folder / "lake") as lake, step.timed("seconds"):
        built = lake.index()
    sides = [one[side] for one in built["measured"] for side in ("proponents", "opponents")]
    step.found |= {"rows": built["rows"], "least recall": min(sides), "median recall": median(sides)}


def trace(step: Step, folder: Path, options: str) -> None:
    """Open the lake and trace some questions, one after the other."""
    import proponent

    settings = json.loads(options)
    with step.timed("first"):
        lake = proponent.open(folder / "lake")
        lake.trace(*_QUESTIONS[0], **settings)
    taken = []
    for question in _QUESTIONS[1:]:
        started = time.perf_counter()
        lake.trace(*question, **settings)
        taken.append(time.perf_counter() - started)
    step.found["seconds"] = round(min(taken), 3)
    [[n_candidates]] = lake.sql("SELECT n_candidates FROM traces ORDER BY created_at DESC LIMIT 1")
    step.found["candidates"] = n_candidates
    lake.close()


def scan(step: Step, folder: Path, _argument: str) -> None:
    """Score everything against one vector, and merely read what that reads."""
    import proponent
    from proponent.schema.tables import encodings_table
    from proponent.store.matching import rows_of
    from proponent.store.scan import exact_scan
    from proponent.store.stale import encoded_texts

    with proponent.open(folder / "lake") as lake:
        encodings = lake.store.table(encodings_table(_ENCODER), at=lake.snapshot)
        rows = rows_of(encodings, encoded_texts(lake.store, lake.snapshot, _ENCODER))
        query = np.random.default_rng(2).standard_normal((1, 4 * _SIDE**2)).astype(np.float32)
        for name in ("first", "seconds"):
            with step.timed(name):
                exact_scan(encodings, query, rows=rows, k=10, unit_norm=True)
        with step.timed("read"):
            for _batch in encodings.scanner(columns=["text_hash", "norm", "codes", "scales"]).to_batches():
                pass


def curvature(step: Step, folder: Path, _argument: str) -> None:
    """Fit a task's curvature and fill in its norms."""
    import proponent

    with proponent.open(folder / "lake") as lake, step.timed("seconds"):
        lake.fit_curvature(_QUESTIONS, name="task")


_STATEMENTS = {
    "count": "SELECT source, year(published) AS year, count(*) AS n FROM documents GROUP BY ALL",
    "influence": "SELECT source, side, count(*) AS n, sum(score) AS influence FROM influence GROUP BY ALL",
    "mentions": "SELECT entity, count(DISTINCT source) AS n FROM mentions JOIN documents USING (doc_id) GROUP BY ALL",
}


def sql(step: Step, folder: Path, _argument: str) -> None:
    """Ask for a count over the metadata, an aggregation of influence, and a join of all mentions."""
    import proponent

    with proponent.open(folder / "lake") as lake:
        with step.timed("open"):
            lake.sql("SELECT 1")
        for name, statement in _STATEMENTS.items():
            with step.timed(name):
                assert len(lake.sql(statement))


def sql_before(step: Step, folder: Path, _argument: str) -> None:
    """Count what an earlier snapshot had, without what was withdrawn since."""
    import proponent

    with proponent.open(folder / "lake") as lake:
        [[earlier]] = lake.sql("SELECT min(snapshot) FROM traces")
        for name, statement in _STATEMENTS.items():
            with step.timed(name):
                lake.sql(statement, at=earlier)


def report(step: Step, folder: Path, _argument: str) -> None:
    """Write a report of every trace."""
    import proponent

    with proponent.open(folder / "lake") as lake:
        ids = [row.trace_id for row in lake.sql("SELECT trace_id FROM traces")]
        with step.timed("seconds"):
            lake.report(ids, folder / "report.html")
    step.found["traces"] = len(ids)


def status(step: Step, folder: Path, _argument: str) -> None:
    """Ask for the state of the lake."""
    import proponent

    with proponent.open(folder / "lake") as lake, step.timed("seconds"):
        lake.status()


def delete(step: Step, folder: Path, _argument: str) -> None:
    """Withdraw a hundredth of the documents."""
    import proponent

    with proponent.open(folder / "lake") as lake, step.timed("seconds"):
        step.found["documents"] = lake.delete("doc_key LIKE '%77'", reason="benchmark")["documents"]


def check(step: Step, folder: Path, _argument: str) -> None:
    """Check the lake, where this version can."""
    command = [sys.executable, "-m", "proponent", "check", str(folder / "lake")]
    with step.timed("seconds"):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode == 2:
        step.found = {"seconds": None}


def compact(step: Step, folder: Path, options: str) -> None:
    """Compact the lake."""
    import proponent

    with proponent.open(folder / "lake") as lake, step.timed("seconds"):
        lake.compact(forget=options == "forget")


STEPS: dict[str, tuple[Callable[[Step, Path, str], None], str]] = {
    "ingest": (ingest, ""),
    "fit": (fit, ""),
    "encode": (encode, ""),
    "encode, nothing left": (encode_nothing, ""),
    "scan": (scan, ""),
    "trace": (trace, "{}"),
    **{f"trace, {name}": (trace, json.dumps({"filter": where})) for name, where in _FILTERS.items()},
    "curvature": (curvature, ""),
    "trace, task": (trace, '{"curvature": "task"}'),
    "index": (index, ""),
    "trace, approximate": (trace, '{"approximate": true}'),
    "sql": (sql, ""),
    "report": (report, ""),
    "status": (status, ""),
    "check": (check, ""),
    "delete": (delete, ""),
    "trace, after the delete": (trace, "{}"),
    "sql, before the delete": (sql_before, ""),
    "compact": (compact, ""),
    "compact --forget": (compact, "forget"),
    "trace, after the compaction": (trace, "{}"),
}


def run_step(name: str, folder: Path) -> None:
    """Run a step in this process and print what it found, with the peak memory of it and of its children."""
    from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

    step = Step()
    task, argument = STEPS[name]
    task(step, folder, argument)
    peak = max(getrusage(who).ru_maxrss for who in (RUSAGE_SELF, RUSAGE_CHILDREN)) / 1024
    print(json.dumps(step.found | {"peak_mib": round(peak)}))


def disk_use(lake: Path) -> dict[str, float]:
    """Return the megabytes of each table, and of the rest of a lake."""
    sizes: dict[str, float] = {}
    for file in lake.rglob("*"):
        if file.is_file():
            parts = file.relative_to(lake).parts
            name = parts[1].removesuffix(".lance") if parts[0] == "tables" else parts[0]
            sizes[name] = sizes.get(name, 0) + file.stat().st_size / 1e6
    return {name: round(size, 1) for name, size in sorted(sizes.items(), key=lambda item: -item[1])}


def measure(folder: Path, n_passages: int) -> dict[str, Any]:
    """Measure everything; return what the last line says."""
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(corpus_lines(n_passages))
    size = (folder / "corpus.jsonl").stat().st_size / 1e6
    print(f"{n_passages:,} passages, {size:,.0f} MB of JSON Lines, {os.cpu_count()} cores\n")
    found: dict[str, Any] = {"passages": n_passages, "steps": {}}
    for name in STEPS:
        found["steps"][name] = told = measured(name, folder)
        figures = "  ".join(f"{key} {value}" for key, value in told.items() if key not in ("seconds", "peak_mib"))
        seconds = "" if told.get("seconds") is None else f"{told['seconds']:9.2f} s"
        print(f"  {name:28} {seconds:11} {told['peak_mib']:6,} MiB  {figures}", flush=True)
        if name in ("compact", "trace, after the delete", "compact --forget"):
            found[f"mb after {name}"] = disk_use(folder / "lake")
    found["peak_mib"] = max(told["peak_mib"] for told in found["steps"].values())
    return found


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Run a step in a process of its own; return what it found."""
    command = [sys.executable, __file__, "--step", name, "--keep", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="empty folder for the lake, which stays there")
    parser.add_argument("--step", choices=STEPS, help="one step alone, on a lake that was kept")
    options = parser.parse_args()
    if options.step:
        run_step(options.step, options.keep)
    elif options.keep:
        options.keep.mkdir(parents=True)
        print(json.dumps(measure(options.keep, options.passages)))
    else:
        with tempfile.TemporaryDirectory() as parent:
            print(json.dumps(measure(Path(parent), options.passages)))


if __name__ == "__main__":
    main()
