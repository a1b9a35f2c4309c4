"""What a matrix of scores is worth: ranks of gold passages, and the mean change by steps on the first ten.

Notable: values are of single facts, so that halves, splits and paired tests are taken of the same numbers. A fact's own
row is taken out of the list before its sentences are ranked, which it would otherwise push to the second place.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from steps import LISTS, places_of
from work import ROW, Work, read_rows

from proponent.query.evaluate.statistics import Interval, interval, resampled_means, sign_flip_p

OWN: Final = "own row"
"""Reciprocal rank of the fact's filled-in prompt, of facts that were trained on as one."""
SENTENCES: Final = "sentences"
"""Reciprocal rank of the first sentence that is said to state the fact, the own row aside."""
TAIL: Final = "tail-patch"
"""Mean change of the target's log-probability, in thousandths of a nat, by steps on the first ten passages."""
MEASURES: Final = (OWN, SENTENCES, TAIL)
TUNE: Final = "tune"
REPORT: Final = "report"
_TOP: Final = 10
_SEED: Final = 0

Values = dict[str, Any]
"""By measure, a value of every fact, None where a fact has none; and the first passages of some facts."""


class Judge:
    """Gold, halves and steps of a study."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.facts = read_rows(work.facts)
        self.places = places_of(work)
        self._index = {row["id"]: place for place, row in enumerate(read_rows(work.corpus))}
        self.own = [self._index.get(ROW + fact["id"], -1) for fact in self.facts]
        """Every fact's own row in the corpus; -1 for a fact that was seen in sentences only."""
        self.sentences = [
            [self._index[key] for key in fact["doc_keys"] if not key.startswith(ROW)] for fact in self.facts
        ]
        relations = sorted({fact["relation"] for fact in self.facts})
        order = np.random.default_rng(_SEED).permutation(len(relations))
        self.tuned_on = {relations[place] for place in order[: (len(relations) + 1) // 2]}
        """Relations that settings are chosen on; reported are the others."""

    @cached_property
    def changes(self) -> Mapping[str, Mapping[str, float]]:
        """Return changes of log-probabilities in nats by steps on passages, by fact and passage."""
        found: Mapping[str, Mapping[str, float]] = self._work.read("steps")["changes"]
        return found

    def half(self, which: str | None) -> list[int]:
        """Return the facts of a half, or all."""
        return [
            place
            for place, fact in enumerate(self.facts)
            if which is None or (fact["relation"] in self.tuned_on) == (which == TUNE)
        ]

    def values(self, scores: np.ndarray) -> Values:
        """Judge scores (facts, passages); what steps on the first ten do is left to `with_steps`.

        A fact whose scores are not numbers was not asked for.
        """
        found: Values = {OWN: [None] * len(self.facts), SENTENCES: [None] * len(self.facts), LISTS: {}}
        for fact, row in enumerate(scores):
            own, listed = self.own[fact], row.copy()
            if np.isnan(row).any():
                continue
            if own >= 0:
                found[OWN][fact] = 1 / _rank(listed, [own])
                listed[own] = -np.inf
            if self.sentences[fact]:
                found[SENTENCES][fact] = 1 / _rank(listed, self.sentences[fact])
        for fact in self.places:
            if np.isnan(scores[fact]).any():
                continue
            found[LISTS][str(fact)] = np.argsort(-scores[fact], kind="stable")[:_TOP].tolist()
        return found

    def values_of_lists(self, lists: Sequence[Sequence[int]]) -> Values:
        """Judge lists of passages, best first, one of every fact; what a list does not have was not found."""
        found: Values = {OWN: [None] * len(self.facts), SENTENCES: [None] * len(self.facts)}
        for fact, listed in enumerate(lists):
            own = self.own[fact]
            if own >= 0:
                found[OWN][fact] = _reciprocal(listed, [own])
            if self.sentences[fact]:
                found[SENTENCES][fact] = _reciprocal([one for one in listed if one != own], self.sentences[fact])
        return found

    def with_steps(self, values: Values) -> Values:
        """Add what steps on the listed passages do."""
        found = {**values, TAIL: [None] * len(self.facts)}
        for fact, passages in values[LISTS].items():
            changes = self.changes[fact]
            found[TAIL][int(fact)] = 1000 * float(np.mean([changes[str(one)] for one in passages]))
        return found


def _reciprocal(listed: Sequence[int], gold: Sequence[int]) -> float:
    return next((1 / rank for rank, one in enumerate(listed, start=1) if one in gold), 0.0)


def _rank(scores: np.ndarray, gold: Sequence[int]) -> int:
    """Return the rank of the best gold passage; of equal scores the gold one counts as the last."""
    best = scores[gold].max()
    return int((scores >= best).sum() - (scores[gold] >= best).sum() + 1)


def kept(values: Values, measure: str, facts: Sequence[int]) -> np.ndarray:
    """Return a measure's values of some facts, of those that have one."""
    return np.array([values[measure][fact] for fact in facts if values[measure][fact] is not None], np.float64)


def told(values: Values, measure: str, facts: Sequence[int], *, resamples: int = 2000) -> Interval | None:
    """Return a measure's mean over some facts with its interval."""
    return interval(kept(values, measure, facts).tolist(), resamples=resamples, confidence=0.95, seed=_SEED)


class Difference(NamedTuple):
    """One mean less another, over the same facts."""

    mean: float
    low: float
    high: float
    n: int
    p: float


def compared(one: Values, other: Values, measure: str, facts: Sequence[int]) -> Difference | None:
    """Compare two by the facts that both have, paired."""
    both = [
        (a, b) for fact in facts if (a := one[measure][fact]) is not None and (b := other[measure][fact]) is not None
    ]
    if not both:
        return None
    differences = np.array([a - b for a, b in both])
    low, high = np.percentile(resampled_means(differences, resamples=2000, seed=_SEED), [2.5, 97.5]).tolist()
    p = sign_flip_p(differences.tolist(), flips=20_000, seed=_SEED)
    return Difference(float(differences.mean()), low, high, len(both), p)


def best_of(named: Mapping[str, Values], measure: str, facts: Sequence[int]) -> str:
    """Return the name whose mean over some facts is highest."""
    return max(named, key=lambda name: float(kept(named[name], measure, facts).mean()))


def kinds_of(fact: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return what a listed passage is to a fact, in words."""
    if row["id"] == ROW + fact["id"]:
        return "own row"
    if row["id"] in fact["doc_keys"]:
        return "sentence of the fact"
    text = row["text"].casefold()
    subject = any(name.casefold() in text for name in (fact["subject"], *fact["subject_aliases"]))
    named = any(name.casefold() in text for name in (fact["object"], *fact["aliases"]))
    words = {(True, True): "names both", (True, False): "names the subject", (False, True): "names the object"}
    what = words.get((subject, named), "names neither")
    return f"a row, {what}" if row["id"].startswith(ROW) else what
