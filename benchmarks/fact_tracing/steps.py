"""A step of the optimizer on every passage that any setting lists among the first ten of a fact: influence.

The harness takes steps on what methods list; here the same steps, by the harness's own code, serve all settings that
are compared in memory. The facts are those that the harness draws for its own tail-patches, by the same seed. Changes
that are known are not measured again.
"""

from collections import defaultdict
from collections.abc import Iterator
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


def run(work: Work) -> None:
    """Write the changes of log-probabilities in nats, by fact and passage."""
    torch.set_num_threads(work.threads)
    checkpoint = load(work, MAIN)
    examples = examples_of(work)
    layers = cover(checkpoint.model, blocks=1).layers
    moments = read_moments(work.model(MAIN) / "optimizer.pt", checkpoint.model, layers, elementwise=True)
    known = work.read("steps")["changes"] if work.is_current(work.found("steps"), MAIN) else {}
    changes: dict[str, dict[str, float]] = defaultdict(dict, known)
    facts_of = defaultdict(set)
    for fact, passage in _wanted(work):
        if str(passage) not in changes[str(fact)]:
            facts_of[passage].add(fact)
    with TailPatch(checkpoint.model, lr=work.size.step_size, moments=moments) as stepping:
        for done, (passage, facts) in enumerate(sorted(facts_of.items()), start=1):
            places = sorted(facts)
            taken = stepping.changes(examples.passages[passage], [examples.facts[place] for place in places])
            for place, change in zip(places, taken, strict=True):
                changes[str(place)][str(passage)] = change.log_probability
            if done % 200 == 0:
                print(f"{done} of {len(facts_of)} passages stepped on", flush=True)
                work.write("steps", {"lr": work.size.step_size, "changes": changes})
    work.write("steps", {"lr": work.size.step_size, "changes": changes})


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
