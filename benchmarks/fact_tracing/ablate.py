"""Every part of the method turned on, off and over, in memory: what each is worth, and what would be better.

A setting's scores are judged on every fact and kept as values of single facts; the report splits them into the half of
the relations that settings are chosen on and the other half.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, cached_property, lru_cache
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import torch
from ranking import Judge, Values
from spaces import Space, Split, between, cosines, dots, fit, under, unit
from vectors import BASE, FORMER, HALF, OTHER_SEED, lengths, vectors_path
from work import Work, read_rows

import proponent
from proponent.encode.checkpoint import device_here
from proponent.query.lexical import search_text
from proponent.query.questions import Question
from proponent.store.codes import dequantise, quantise
from proponent.store.full_text import match_texts, open_full_text

DEFAULT: Final = "default"
"""The setting that is the project's: V by rows and columns, Ledoit-Wolf, unit length, its blocks and side, no task."""
MOMENTS: Final = ("none", "estimated", BASE, "weight by weight")
PARTS_OF_MORE: Final = "parts, twice the components"
_CONSTANT: Final = 60
"""Of reciprocal rank fusion."""
_SPACES: Final = 6
"""Encodings of everything that are kept at once: a GPU's memory is not endless."""
_DEEPEST: Final = 1000
"""Passages that share words with a question, best first, whose scores are taken."""

Named = Iterator[tuple[str, np.ndarray]]


def run(work: Work) -> None:
    """Judge all settings; write values by family and name. A family that is done is not done again."""
    torch.set_num_threads(work.threads)
    judge, bench = Judge(work), Bench(work)
    base = vectors_path(work, BASE)
    known = work.found("ablate").exists() and work.found("ablate").stat().st_mtime > base.stat().st_mtime
    found: dict[str, dict[str, Values]] = work.read("ablate") if known else {}
    for family, settings in FAMILIES.items():
        if family in found:
            continue
        found[family] = {name: judge.values(scores) for name, scores in settings(bench)}
        print(f"{family}: {', '.join(found[family])}", flush=True)
        work.write("ablate", found)
    work.write("ablate_facts", bench.notes)


def _all_pass(keys: pa.Array) -> np.ndarray:
    return np.ones(len(keys), bool)


class Bench:
    """What settings are made of, made once."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.facts = read_rows(work.facts)
        self.task_relations = [row["relation"] for row in read_rows(work.task)]
        self.sizes = tuple(len(read_rows(path)) for path in (work.corpus, work.facts, work.task, work.otherwise))
        self.notes: dict[str, object] = {}
        self.space = lru_cache(maxsize=_SPACES)(self._space)
        self.words = cache(self._words)

    def split(self, name: str) -> Split:
        """Return an encoder's vectors as they are."""
        return Split.of(np.load(vectors_path(self.work, name)), self.sizes)  # type: ignore[arg-type]

    def _space(self, name: str) -> Space:
        space = Space.of(self.split(name))
        self.notes[f"rho, {name}"] = space.rho.tolist()
        return space

    @cached_property
    def whitened(self) -> Split:
        """The project's default."""
        return self.space(BASE).whitened()

    @cached_property
    def default(self) -> np.ndarray:
        """The default's scores."""
        return cosines(self.whitened.facts, self.whitened.passages)

    def asked_otherwise(self, scores: np.ndarray) -> np.ndarray:
        """Return scores of questions in other words by the facts' places, NaN for facts that have no such question."""
        places = {fact["id"]: place for place, fact in enumerate(self.facts)}
        found = np.full(self.sizes[1::-1], np.nan, np.float32)
        found[[places[row["id"]] for row in read_rows(self.work.otherwise)]] = scores
        return found

    def _words(self, asked: Path) -> np.ndarray:
        """Return the scores of BM25 (questions, passages), 0 where no word is shared."""
        order = {row["id"]: place for place, row in enumerate(read_rows(self.work.corpus))}
        questions = read_rows(asked)
        scores = np.zeros((len(questions), self.sizes[0]), np.float32)
        with proponent.open(self.work.lake) as lake:
            rows = lake.sql("SELECT doc_key, text_hash FROM passages JOIN documents USING (doc_id)").to_arrow()
            places = {row["text_hash"]: order[row["doc_key"]] for row in rows.to_pylist()}
            passages = open_full_text(lake.store, lake.snapshot)
            for row, fact in zip(scores, questions, strict=True):
                text = search_text(Question(fact["prompt"], fact["target"]))
                found = match_texts(passages, text, passes=_all_pass, k=min(_DEEPEST, len(places)))
                row[[places[key] for key in found.keys]] = found.scores
        return scores


def _parts(bench: Bench) -> Named:
    """Second moments by curvature by length: the ancestors and everything between."""
    for moments in MOMENTS:
        space = bench.space(moments)
        split, white = space.split, space.whitened()  # a rotation changes no dot product
        yield f"V {moments}, no R, dot product", dots(split.facts, split.passages)
        yield f"V {moments}, no R, cosine", cosines(split.facts, split.passages)
        yield f"V {moments}, R, dot product", dots(white.facts, white.passages)
        yield f"V {moments}, R, cosine", cosines(white.facts, white.passages)
        yield f"V {moments}, R with task, cosine", under(fit(white.task), white.facts, white.passages)


def _correction(bench: Bench) -> Named:
    """How much of V is divided by; the first is what a step of the optimizer on a passage does, to first order."""
    split, white = bench.space(HALF).split, bench.space(HALF).whitened()
    tokens = lengths(bench.work)  # (passages,)
    yield "an Adam step, to first order", dots(split.facts, split.passages) / tokens
    yield "1 / V^(1/4), no R, cosine", cosines(split.facts, split.passages)
    yield "1 / V^(1/4), R, cosine", cosines(white.facts, white.passages)
    whole = bench.space(BASE).split
    yield "1 / V^(1/2), no R, dot product of a token's mean", dots(whole.facts, whole.passages) / tokens


def _shrinkage(bench: Bench) -> Named:
    space = bench.space(BASE)
    for rho in (1e-3, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        white = space.whitened(rho)
        yield f"rho {rho:g}", cosines(white.facts, white.passages)
    yield "Ledoit-Wolf", bench.default
    white = space.whitened(space.rho**2)
    yield "Ledoit-Wolf squared", cosines(white.facts, white.passages)
    white = space.whitened(space.rho / 2)
    yield "half of Ledoit-Wolf", cosines(white.facts, white.passages)


def _power(bench: Bench) -> Named:
    """R^-a on either side of the product; the method has a = 1/2."""
    for power in (0.125, 0.25, 0.375, 0.5, 0.75, 1.0):
        white = bench.space(BASE).whitened(power=-power)
        yield f"R^-{power:g}", cosines(white.facts, white.passages)


def _sample(bench: Bench) -> Named:
    """Whose second moment R0 is: the passages' as they are, or of equal length."""
    split = bench.split(BASE)
    normed = unit(split.passages).reshape(split.passages.shape)
    space = Space.of(split, normed)
    bench.notes["rho, unit vectors"] = space.rho.tolist()
    white = space.whitened()
    yield "unit vectors", cosines(white.facts, white.passages)
    yield "unit vectors, with task", under(fit(white.task), white.facts, white.passages)
    by_group = split.passages / split.passages.norm(dim=2, keepdim=True).clamp_min(1e-30)
    white = Space.of(split, by_group).whitened()
    yield "unit vectors, group by group", cosines(white.facts, white.passages)


def _mixing(bench: Bench) -> Named:
    """Lambda of a task of which no query is evaluated, and how the task is fitted."""
    white = bench.whitened
    task = fit(white.task)
    for mixing in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99):
        yield f"lambda {mixing:g}", under(replace(task, mixing=mixing), white.facts, white.passages)
    bench.notes["lambda by the rule"] = task.mixing
    yield "lambda by the rule", under(task, white.facts, white.passages)
    equal = unit(white.task).reshape(white.task.shape)
    task = fit(equal)
    bench.notes["lambda by the rule, unit queries"] = task.mixing
    yield "by the rule, queries of unit length", under(task, white.facts, white.passages)
    yield "by the rule, a curvature for each relation", _by_relation(bench, white)
    # What the paper does, and what an evaluation of other facts should not do.
    task = fit(white.facts)
    yield "by the rule, fitted on the evaluated queries", under(task, white.facts, white.passages)
    yield "lambda 0.9, fitted on them", under(replace(task, mixing=0.9), white.facts, white.passages)


def _by_relation(bench: Bench, white: Split) -> np.ndarray:
    scores = np.zeros(bench.sizes[1::-1], np.float32)
    for relation in sorted(set(bench.task_relations)):
        task = fit(white.task[[place for place, one in enumerate(bench.task_relations) if one == relation]])
        places = [place for place, fact in enumerate(bench.facts) if fact["relation"] == relation]
        scores[places] = under(task, white.facts[places], white.passages)
    return scores


def _length(bench: Bench) -> Named:
    """Weigh by the passage's length to an exponent: 0 is unit norm, 1 the dot product."""
    for exponent in (-0.25, 0.0, 0.25, 0.5, 0.75, 1.0):
        yield f"length^{exponent:g}", between(bench.whitened.facts, bench.whitened.passages, exponent)


def _size(bench: Bench) -> Named:
    """How many components, of how many blocks, under which projection."""
    for name in ("side / 2", "one block", "half the blocks", FORMER, BASE, OTHER_SEED):
        white = bench.space(name).whitened()
        yield sized(name, white), cosines(white.facts, white.passages)
    both = _side_by_side(bench.whitened, white)
    yield sized("two projections", both), cosines(both.facts, both.passages)
    yield "two projections, with task", under(fit(both.task), both.facts, both.passages)


def sized(name: str, white: Split) -> str:
    """Return the name of an encoder with its components."""
    return f"{DEFAULT if name == BASE else name}, d = {white.facts.shape[1] * white.facts.shape[2]:,}"


def _side_by_side(one: Split, other: Split) -> Split:
    """Return encodings that have the groups of both."""
    return Split(*(torch.cat(pair, 1) for pair in zip(one, other, strict=True)))


def _parts_of_more(bench: Bench) -> Named:
    """Second moments by curvature again, with twice the components: two projections."""
    for moments, other in (("none", f"none, {OTHER_SEED}"), (BASE, OTHER_SEED)):
        one, more = bench.space(moments), bench.space(other)
        bare, white = _side_by_side(one.split, more.split), _side_by_side(one.whitened(), more.whitened())
        yield f"V {moments}, no R, dot product", dots(bare.facts, bare.passages)
        yield f"V {moments}, no R, cosine", cosines(bare.facts, bare.passages)
        yield f"V {moments}, R, dot product", dots(white.facts, white.passages)
        yield f"V {moments}, R, cosine", cosines(white.facts, white.passages)
        yield f"V {moments}, R with task, cosine", under(fit(white.task), white.facts, white.passages)


def _codes(bench: Bench) -> Named:
    """How the passages' vectors are stored; queries are not rounded."""
    queries, passages = bench.whitened.facts, unit(bench.whitened.passages)
    for name in ("float16", "int8", "int4"):
        stored = torch.from_numpy(dequantise(quantise(passages.cpu().numpy(), name)))
        yield name, dots(queries, stored.to(queries.device))
    yield "signs", dots(queries, passages.sign())


def _layers(bench: Bench) -> Named:
    """Take attention, MLP and blocks by themselves, and weigh them."""
    white = bench.whitened
    groups = white.facts.shape[1]
    taken = {"attention": slice(0, None, 2), "MLP": slice(1, None, 2)}
    taken |= {f"block {block + 1}": slice(2 * block, 2 * block + 2) for block in range(groups // 2)}
    for name, which in taken.items():
        yield f"{name} alone", cosines(white.facts[:, which], white.passages[:, which])
    alone = [cosines(white.facts[:, [group]], white.passages[:, [group]]) for group in range(groups)]
    yield "every group at unit length", np.mean(alone, axis=0)
    yield "attention twice", _weighted(white, (2.0, 1.0))
    yield "MLP twice", _weighted(white, (1.0, 2.0))


def _weighted(white: Split, parts: tuple[float, float]) -> np.ndarray:
    weights = torch.tensor(parts * (white.facts.shape[1] // 2), device=white.facts.device).sqrt()[:, None]
    return cosines(white.facts * weights, white.passages * weights)


def _checkpoints(bench: Bench) -> Named:
    """Cosines of several checkpoints of one training added up."""
    scores = {}
    for name in ("quarter", "half", BASE):
        white = bench.space(name).whitened()
        scores[name if name != BASE else "end"] = cosines(white.facts, white.passages)
    for n in (1, 2, 3):
        for names in combinations(scores, n):
            yield " + ".join(names), np.sum([scores[name] for name in names], axis=0)


def _fused(bench: Bench) -> Named:
    """Influence and words."""
    words, influence = bench.words(bench.work.facts), bench.default
    yield "words", words
    yield "reciprocal ranks", 1 / (_CONSTANT + _ranks(words)) + 1 / (_CONSTANT + _ranks(influence))
    for constant in (1, 10):
        ranks = 1 / (constant + _ranks(words)) + 1 / (constant + _ranks(influence))
        yield f"reciprocal ranks, constant {constant}", ranks
    for weight in (0.1, 0.25, 0.5, 0.75, 0.9):
        yield f"z-scores, {weight:g} of words", weight * _z(words) + (1 - weight) * _z(influence)
    for weight in (0.1, 0.25, 0.5):
        top = words.max(1, keepdims=True).clip(1e-9)
        yield (
            f"of the best score, {weight:g} of words",
            weight * words / top + (1 - weight) * influence / influence.max(1, keepdims=True),
        )


def _otherwise(bench: Bench) -> Named:
    """Ask by the relation's second prompt, which the fact's row does not use."""
    white = bench.whitened
    yield "influence", bench.asked_otherwise(cosines(white.otherwise, white.passages))
    yield "influence, with task", bench.asked_otherwise(under(fit(white.task), white.otherwise, white.passages))
    none = bench.space("none").whitened()
    yield "influence, V none", bench.asked_otherwise(cosines(none.otherwise, none.passages))
    yield "words", bench.asked_otherwise(bench.words(bench.work.otherwise))


def _ranks(scores: np.ndarray) -> np.ndarray:
    order = torch.from_numpy(scores).to(device_here()).argsort(dim=1, descending=True, stable=True)
    ranks: np.ndarray = order.argsort(dim=1).cpu().numpy() + 1.0
    return ranks


def _z(scores: np.ndarray) -> np.ndarray:
    return (scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True).clip(1e-9)


FAMILIES: Final[Mapping[str, Callable[[Bench], Named]]] = {
    "parts": _parts,
    PARTS_OF_MORE: _parts_of_more,
    "correction": _correction,
    "shrinkage": _shrinkage,
    "power": _power,
    "sample": _sample,
    "lambda": _mixing,
    "length": _length,
    "size": _size,
    "codes": _codes,
    "layers": _layers,
    "checkpoints": _checkpoints,
    "fusion": _fused,
    "asked in other words": _otherwise,
}
