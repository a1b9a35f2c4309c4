"""A step of the optimizer on every passage that any setting lists among the first ten of a fact: influence.

The harness takes steps on what methods list; here the same steps, by the harness's own code, serve all settings that
are compared in memory. The facts are those that the harness draws for its own tail-patches, by the same seed. Changes
that are known are not measured again. On a GPU several processes take steps, since one of them cannot keep it busy.
"""

import multiprocessing
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import torch
from vectors import examples_of, load
from work import MAIN, Work, read_rows

from proponent.encode.layers import cover
from proponent.encode.moments import read_moments
from proponent.encode.tail_patch import TailPatch
from proponent.query.evaluate.facts import read_facts
from proponent.query.evaluate.tail import sampled

LISTS: Final = "lists"
"""Where values keep the first ten passages of the facts that influence is measured on, by the fact's place."""
SOURCES: Final = ("ablate", "exact", "peer")
"""Steps of the study whose settings are judged."""


_ON_A_GPU: Final = 4
"""Processes."""
_AT_ONCE: Final = 200
"""Passages that are stepped on between one time that changes are kept and the next."""

Wanted = tuple[int, Sequence[int]]
"""A passage, and the facts that list it."""


def run(work: Work) -> None:
    """Write the changes of log-probabilities in nats, by fact and passage."""
    known = work.read("steps") if work.is_current(work.found("steps"), MAIN) else {}
    of_these_steps = known.get("lr") == work.size.step_size
    changes: dict[str, dict[str, float]] = defaultdict(dict, known["changes"] if of_these_steps else {})
    facts_of = defaultdict(set)
    for fact, passage in _wanted(work):
        if str(passage) not in changes[str(fact)]:
            facts_of[passage].add(fact)
    wanted = [(passage, sorted(facts)) for passage, facts in sorted(facts_of.items())]
    with _processes() as processes:
        some = [wanted[at : at + _AT_ONCE] for at in range(0, len(wanted), _AT_ONCE)]
        for done, found in enumerate(processes.map(partial(_changes, work), some), start=1):
            for fact, passage, change in found:
                changes[str(fact)][str(passage)] = change
            print(f"{sum(map(len, some[:done]))} of {len(wanted)} passages stepped on", flush=True)
            work.write("steps", {"lr": work.size.step_size, "changes": changes})
    work.write("steps", {"lr": work.size.step_size, "changes": changes})


def _processes() -> Executor:
    """Return what takes steps: this process on the CPU, several on a GPU."""
    if not torch.cuda.is_available():
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(_ON_A_GPU, multiprocessing.get_context("spawn"))


def _changes(work: Work, wanted: Sequence[Wanted]) -> list[tuple[int, int, float]]:
    """Step on passages; return fact, passage and the change of the fact's log-probability."""
    torch.set_num_threads(work.threads)
    checkpoint, examples = load(work, MAIN), examples_of(work)
    layers = cover(checkpoint.model, blocks=1).layers
    moments = read_moments(work.model(MAIN) / "optimizer.pt", checkpoint.model, layers, elementwise=True)
    found = []
    with TailPatch(checkpoint.model, lr=work.size.step_size, moments=moments) as stepping:
        for passage, facts in wanted:
            taken = stepping.changes(examples.passages[passage], [examples.facts[place] for place in facts])
            found += [(fact, passage, change.log_probability) for fact, change in zip(facts, taken, strict=True)]
    return found


def places_of(work: Work) -> list[int]:
    """Return the facts that the harness measures influence on."""
    return sampled(read_facts(read_rows(work.facts)), work.size.tail_patch, seed=0)


def _wanted(work: Work) -> Iterator[tuple[int, int]]:
    """Yield facts and passages that settings list for them."""
    for source in SOURCES:
        for lists in _lists(work.read(source)):
            for fact, passages in lists.items():
                yield from ((int(fact), passage) for passage in passages)


def _lists(found: Any) -> Iterator[dict[str, list[int]]]:
    """Yield what values list, however deep they lie in what a step found."""
    if isinstance(found, dict):
        if LISTS in found:
            yield found[LISTS]
        for value in found.values():
            yield from _lists(value)
