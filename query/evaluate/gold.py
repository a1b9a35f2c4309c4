"""Which texts state a fact, which name its entities, and what a listed text therefore is to it.

Strict gold is what somebody said states the fact. `both` adds every text that names subject and object: more than state
it, but without them many that do would count as wrong. A gold passage stands for its text, so that other passages of
the same text state the fact, too.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from proponent.store.lake import LakeStore
from proponent.store.rows import rows_with
from proponent.store.snapshots import Snapshot

from .facts import Fact
from .texts import Names, Texts, each_text, fold

STRICT: Final = "strict"
BOTH: Final = "both"
GOLDS: Final = (STRICT, BOTH)
"""What counts as found: a text that is said to state the fact, or one that names both entities as well."""

KINDS: Final = ("states", "both", "one", "relation", "neither")
"""What a listed text is to a fact, the first that holds: it states it, names both entities, names one of them, states
another fact of the relation, or nothing of that."""

_NOTHING: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True)
class Gold:
    """What the texts are to one fact; all are hashes of texts that are searched."""

    states: frozenset[str] = _NOTHING
    subject: frozenset[str] = _NOTHING
    object: frozenset[str] = _NOTHING
    relation: frozenset[str] = _NOTHING
    """Texts that state any fact of the relation."""
    n_passages: int = 0
    """Passages whose text states it: how often the fact occurs."""
    has_entities: bool = False
    """Whether the fact says who its subject is."""

    def texts(self, which: str) -> frozenset[str]:
        """Return the texts that count as found, strictly or with those that name both entities."""
        return self.states if which == STRICT else self.states | (self.subject & self.object)

    def kind(self, key: str) -> str:
        """Return what a text is to the fact."""
        if key in self.states:
            return "states"
        named = (key in self.subject) + (key in self.object)
        return ("relation" if key in self.relation else "neither", "one", "both")[named]


@dataclass(frozen=True)
class AllGold:
    """What the texts are to every fact, in the facts' order."""

    of_facts: list[Gold]
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Facts that strict metrics leave out, by the reason."""
    n_unknown_ids: int = 0
    """Ids of passages and documents in the facts that the lake does not have."""


def find_gold(lake: LakeStore, at: Snapshot, facts: Sequence[Fact], texts: Texts) -> AllGold:
    """Find the texts that state the facts and those that name their entities, in one pass over the passages."""
    stated, n_unknown = _stated(lake, at, facts)
    searched = texts.n_passages
    found = [frozenset(key for key in keys if key in searched) for keys in stated]
    relations: dict[str | None, set[str]] = defaultdict(set)
    for fact, keys in zip(facts, found, strict=True):
        if fact.relation is not None:
            relations[fact.relation] |= keys
    of_relation = {name: frozenset(keys) for name, keys in relations.items()}
    naming = _texts_naming(lake, at, facts, texts)
    golds = [
        Gold(
            states=keys,
            subject=_any_of(naming, fact.subject_names),
            object=_any_of(naming, fact.object_names) if fact.subject else _NOTHING,
            relation=of_relation.get(fact.relation, _NOTHING),
            n_passages=sum(searched[key] for key in keys),
            has_entities=fact.subject is not None,
        )
        for fact, keys in zip(facts, found, strict=True)
    ]
    skipped = Counter(
        "no stating passage is known" if not fact.has_gold else "no stating passage is among those searched"
        for fact, gold in zip(facts, golds, strict=True)
        if not gold.states
    )
    return AllGold(golds, dict(skipped), n_unknown)


def _stated(lake: LakeStore, at: Snapshot, facts: Sequence[Fact]) -> tuple[list[set[str]], int]:
    """Return the hashes of the texts that each fact names, and how many of its ids are unknown.

    They are looked up among all passages: the text of one that a filter leaves out may stand in another one.
    """
    passages = lake.table("passages", at=at)
    by_passage = _grouped(passages, "passage_id", (one for fact in facts for one in fact.passage_ids or ()))
    documents = lake.table("documents", at=at)
    wanted = pa.array(sorted({one for fact in facts for one in fact.doc_keys or ()}), pa.string())
    rows = rows_with(documents, "doc_key", wanted, columns=["doc_key", "doc_id"])
    by_document = _grouped(passages, "doc_id", rows["doc_id"].to_pylist())
    by_key: dict[str, set[str]] = defaultdict(set)
    for row in rows.to_pylist():
        by_key[row["doc_key"]] |= by_document.get(row["doc_id"], set())
    stated = [
        set().union(
            *(by_passage.get(one, set()) for one in fact.passage_ids or ()),
            *(by_key.get(one, set()) for one in fact.doc_keys or ()),
        )
        for fact in facts
    ]
    unknown = {one for fact in facts for one in fact.passage_ids or () if one not in by_passage}
    unknown |= {f"document {one}" for fact in facts for one in fact.doc_keys or () if one not in by_key}
    return stated, len(unknown)


def _grouped(passages: Any, key: str, ids: Iterable[str]) -> dict[str, set[str]]:
    """Return the hashes of passages' texts, by a column of the passages."""
    wanted = pa.array(sorted(set(ids)), pa.string())
    rows = rows_with(passages, key, wanted, columns=[key, "text_hash"])
    grouped: dict[str, set[str]] = defaultdict(set)
    for one, text in zip(rows[key].to_pylist(), rows["text_hash"].to_pylist(), strict=True):
        grouped[one].add(text)
    return grouped


def _texts_naming(lake: LakeStore, at: Snapshot, facts: Sequence[Fact], texts: Texts) -> dict[str, frozenset[str]]:
    """Return the texts that have each name, by the name as `fold` writes it."""
    asked = [fact for fact in facts if fact.subject]
    names = Names({name for fact in asked for name in (*fact.subject_names, *fact.object_names)})
    having: dict[str, set[str]] = defaultdict(set)
    if asked:
        for key, text in each_text(lake, at, texts.n_passages):
            for name in names.within(text):
                having[name].add(key)
    return {name: frozenset(keys) for name, keys in having.items()}


def _any_of(naming: Mapping[str, frozenset[str]], names: Iterable[str]) -> frozenset[str]:
    return _NOTHING.union(*(naming.get(fold(name), _NOTHING) for name in names))


def keys_of_ids(lake: LakeStore, at: Snapshot, texts: Texts, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the searched texts that ids stand for, by the id: a passage's, or a document's in their order.

    An id that the lake does not have is missing; one whose texts are not searched has none.
    """
    wanted = pa.array(sorted(set(names)), pa.string())
    passages = lake.table("passages", at=at)
    columns = ["passage_id", "doc_id", "ordinal", "text_hash"]
    found: dict[str, list[str]] = {}
    for row in rows_with(passages, "passage_id", wanted, columns=columns).to_pylist():
        found[row["passage_id"]] = [row["text_hash"]]
    documents = rows_with(lake.table("documents", at=at), "doc_key", wanted, columns=["doc_key", "doc_id"])
    of_document = dict(zip(documents["doc_id"].to_pylist(), documents["doc_key"].to_pylist(), strict=True))
    rows = rows_with(passages, "doc_id", pc.unique(documents["doc_id"].combine_chunks()), columns=columns).to_pylist()
    for row in sorted(rows, key=lambda one: (one["doc_id"], one["ordinal"])):
        found.setdefault(of_document[row["doc_id"]], []).append(row["text_hash"])
    return {name: [key for key in keys if key in texts.n_passages] for name, keys in found.items()}
