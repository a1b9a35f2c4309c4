"""Choose facts and passages: `corpus.jsonl`, `facts.jsonl`, `task.jsonl` and `asked_otherwise.jsonl`.

Passages are sentences that are said to state a chosen fact, prompts of half of the facts filled in with their objects
("rows"), and sentences that state none of the facts. Notable: a fact's gold is every listed sentence that is in the
corpus, whatever it was taken for. Rows of facts that are evaluated use the relation's first prompt, rows of the others
take its prompts in turn, so that the model has seen all of them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sizes import Size
from work import ROW, Work

SEED = 1
"""Not that of the study whose results moved the default (0): what is reported is of other facts."""


def run(work: Work) -> None:
    """Write the four files."""
    facts = pq.read_table(work.data / "trex_facts.parquet").to_pylist()
    sentences = {row["sentence_id"]: row for row in pq.read_table(work.data / "trex_sentences.parquet").to_pylist()}
    usable = {key: row for key, row in sentences.items() if len(row["text"].encode()) <= work.size.longest}
    draw = np.random.default_rng(SEED)
    evaluated, task = _chosen(facts, usable, work.size, draw)
    filled = {fact["fact_id"] for some in (evaluated, task) for fact in some[::2]}
    rows = [_row(fact, 0) for fact in evaluated if fact["fact_id"] in filled]
    rows += [_row(fact, place) for place, fact in enumerate(task) if fact["fact_id"] in filled]
    corpus = rows + _sentences([*evaluated, *task], usable, work.size, draw)
    known = {row["id"] for row in corpus}
    _write(work.corpus, corpus)
    _write(work.facts, (_asked(fact, 0, known) for fact in evaluated))
    _write(work.task, (_asked(fact, place, known) for place, fact in enumerate(task)))
    _write(work.otherwise, (_asked(fact, 1, known) for fact in evaluated if len(fact["prompts"]) > 1))
    print(f"{len(corpus)} passages, {len(rows)} of them filled-in prompts; {len(evaluated)} facts are evaluated")


def _chosen(
    facts: Sequence[Mapping[str, Any]], usable: Mapping[str, Any], size: Size, draw: np.random.Generator
) -> tuple[list[Any], list[Any]]:
    """Draw as many facts of every relation, those evaluated and those of the task, each with a sentence at least."""
    evaluated, task = [], []
    for relation in sorted({fact["relation"] for fact in facts}):
        having = [
            fact
            for fact in facts
            if fact["relation"] == relation and any(one in usable for one in fact["sentence_ids"])
        ]
        order = [having[place] for place in draw.permutation(len(having))]
        # Two facts of one subject and relation would be asked in the same words.
        order = list({fact["subject"]: fact for fact in order}.values())
        evaluated += order[: size.evaluated]
        task += order[size.evaluated : size.evaluated + size.task]
    return evaluated, task


def _sentences(
    facts: Sequence[Mapping[str, Any]], usable: Mapping[str, Any], size: Size, draw: np.random.Generator
) -> list[dict[str, Any]]:
    """Return the chosen facts' sentences, and those that nobody says state any of them."""
    taken: dict[str, None] = {}
    for fact in facts:
        listed = [one for one in fact["sentence_ids"] if one in usable]
        places = draw.permutation(len(listed))[: size.sentences]
        taken |= {listed[place]: None for place in places}
    chosen = {fact["fact_id"] for fact in facts}
    others = [key for key, row in usable.items() if not chosen.intersection(row["fact_ids"])]
    taken |= {others[place]: None for place in draw.permutation(len(others))[: size.distractors]}
    texts: dict[str, str] = {}
    for key in taken:
        texts.setdefault(usable[key]["text"], key)
    return [{"id": key, "text": text} for text, key in texts.items()]


def _prompt(fact: Mapping[str, Any], place: int) -> str:
    prompts: Sequence[str] = fact["prompts"]
    return prompts[place % len(prompts)]


def _row(fact: Mapping[str, Any], place: int) -> dict[str, Any]:
    return {"id": ROW + fact["fact_id"], "text": f"{_prompt(fact, place)} {fact['object']}."}


def _asked(fact: Mapping[str, Any], place: int, known: set[str]) -> dict[str, Any]:
    """Return a fact as `proponent evaluate` reads it."""
    gold = [ROW + fact["fact_id"], *fact["sentence_ids"]]
    return {
        "id": fact["fact_id"],
        "prompt": _prompt(fact, place),
        "target": f" {fact['object']}",
        "relation": fact["relation"],
        "subject": fact["subject"],
        "subject_aliases": fact["subject_aliases"],
        "object": fact["object"],
        "aliases": fact["object_aliases"],
        "doc_keys": [key for key in gold if key in known],
    }


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
