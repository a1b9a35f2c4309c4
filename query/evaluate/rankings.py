"""How each method orders the texts for every fact.

Notable: what is ranked are texts and not passages, and nothing is stored in the lake but norms under a curvature that
has none yet. As in a trace, only a positive score makes a proponent and only a negative one an opponent.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import torch

from proponent.encode.encoder import Encoder
from proponent.encode.methods import METHODS, Method, query_vectors
from proponent.query.curvatures import NamedCurvature, scored_by
from proponent.query.hybrid import LEAST_DEPTH, fuse
from proponent.query.lexical import search_text
from proponent.schema import catalog as models
from proponent.schema.errors import InputError
from proponent.schema.ids import content_id, stream_id
from proponent.schema.settings import BM25, HYBRID, EvaluationSettings, TraceSettings
from proponent.schema.tables import codes_of, encodings_table, norms_table
from proponent.store.full_text import TOKENIZER, match_texts, open_full_text
from proponent.store.lake import LakeStore
from proponent.store.matching import rows_of
from proponent.store.scan import Ranked
from proponent.store.shards import scan_encodings
from proponent.store.snapshots import Snapshot, latest_snapshot

from .cost import bytes_stored
from .dense import rank_dense
from .facts import Fact
from .gold import keys_of_ids
from .methods import DENSE, RANDOM, RUN, Spec
from .nodes import encode_on_nodes, encode_together
from .texts import Texts
from .trec import read_run

OPPONENTS: Final = 10
"""Texts that are kept of the other side."""
QUERIES: Final = 1024
"""Queries of one scan, which bounds the memory for their vectors."""

Progress = Callable[[int], object]


class Scan(NamedTuple):
    """What the scan of some facts takes."""

    encoder: str
    queries: np.ndarray
    """(facts, d) float32."""
    how: dict[str, Any]
    """`rows`, `unit_norm` and `norms`."""


class Ranking(NamedTuple):
    """Text hashes in a method's order, for every fact."""

    proponents: list[list[str]]
    """Best first, down to the depth of the evaluation."""
    opponents: list[list[str]]
    """Lowest score first; empty for methods by which nothing speaks against a target."""


class Loader(Protocol):
    """Finds registered encoders and loads them."""

    def row(self, name: str | None, *, with_moments: bool | None = None) -> models.Encoder:
        """Return a registered encoder, by default the only one with, or without, second moments."""

    def encoder(self, row: models.Encoder) -> Encoder:
        """Return an encoder, loaded."""

    def loads_encoder(self, row: models.Encoder) -> Callable[[LakeStore], Encoder]:
        """Return what loads it on a node."""


@dataclass(frozen=True)
class Searched:
    """Where every method searches, and for what."""

    lake: LakeStore
    at: Snapshot
    texts: Texts
    facts: Sequence[Fact]
    settings: EvaluationSettings
    loader: Loader


@dataclass(frozen=True)
class Resolved:
    """A method with what it needs of the lake."""

    spec: Spec
    encoder: models.Encoder | None = None
    method: Method | None = None
    curvature: NamedCurvature | None = None


def resolve(lake: LakeStore, at: Snapshot, spec: Spec, loader: Loader) -> Resolved:
    """Find a method's encoder and curvature, and see that what it searches is there.

    Raises NotFoundError for what is missing, ModelMismatchError for an encoder that is not made for the method.
    """
    if spec.kind in (BM25, HYBRID):
        open_full_text(lake, at)
    if spec.influence is None:
        return Resolved(spec)
    row = loader.row(spec.encoder, with_moments=METHODS[spec.influence].needs_moments)
    settings = TraceSettings(method=spec.influence, curvature=spec.curvature)
    method, curvature = scored_by(lake, settings, row, None)
    return Resolved(spec, row, method, curvature)


def key_of(one: Resolved, searched: Searched, *, facts: str) -> str:
    """Return the hash of everything that decides a method's ranking: lake, facts and settings."""
    spec, at, settings = one.spec, searched.at, searched.settings
    parts: list[str | int] = [spec.kind, facts, searched.texts.digest, settings.depth]
    if one.encoder is not None and one.curvature is not None:
        version = at.versions[encodings_table(one.encoder.name)]
        parts += [one.encoder.encoder_id, version, one.curvature.curvature_id]
    if spec.kind in (BM25, HYBRID):
        parts += [at.versions["passages"], repr(sorted(TOKENIZER.items()))]
    if spec.kind == RANDOM:
        parts.append(settings.seed)
    if spec.kind == RUN:
        parts.append(_file_id(spec))
    if spec.kind == DENSE:
        from proponent.encode.sentences import sentence_encoder_hash

        assert spec.path is not None
        parts.append(sentence_encoder_hash(spec.path))
    return content_id("ranking", *parts)


def _file_id(spec: Spec) -> str:
    assert spec.path is not None
    try:
        with spec.path.open("rb") as file:
            return stream_id("file", iter(lambda: file.read(1 << 20), b""))
    except OSError as error:
        raise InputError(f"the run {spec.path} cannot be read: {error.strerror}") from error


def stored_bytes(one: Resolved, searched: Searched) -> int | None:
    """Return the bytes of the lake that a method reads; None for what does not lie in it."""
    if one.spec.kind in (RUN, DENSE):
        return None
    lake, at = searched.lake, latest_snapshot(searched.lake.catalog)  # norms may have come with the ranking
    name = one.encoder.name if one.encoder else None
    norms = None
    if one.encoder is not None and one.curvature is not None and one.method is not None and one.method.unit_norm:
        codes = codes_of(lake.table(encodings_table(one.encoder.name), at=searched.at).schema)
        norms = norms_table(one.curvature.curvature_id, codes)
    return bytes_stored(lake, at, one.spec.kind, encoder=name, norms=norms)


def rank(one: Resolved, searched: Searched, progress: Progress) -> Ranking:
    """Order the texts for every fact. Raises EncodingError for a fact that the encoder cannot encode."""
    kind, depth = one.spec.kind, searched.settings.depth
    if kind == BM25:
        return _without_opponents(_by_words(searched, depth, progress))
    if kind == HYBRID:
        return _without_opponents(_fused(one, searched, progress))
    if kind == RANDOM:
        return _without_opponents(_drawn(searched))
    if kind == RUN:
        return _without_opponents(_of_run(one.spec, searched))
    if kind == DENSE:
        assert one.spec.path is not None
        ask = [search_text(fact.question) for fact in searched.facts]
        found = rank_dense(searched.lake, searched.at, searched.texts, one.spec.path, ask, k=depth, progress=progress)
        return _without_opponents(found)
    return _by_gradients(one, searched, depth, progress)


def _without_opponents(proponents: list[list[str]]) -> Ranking:
    return Ranking(proponents, [[] for _ in proponents])


def _by_gradients(one: Resolved, searched: Searched, depth: int, progress: Progress) -> Ranking:
    ranking = Ranking([], [])
    for scan in scans(one, searched, progress):
        for top, bottom in scan_encodings(searched.lake, searched.at, scan.encoder, scan.queries, k=depth, **scan.how):
            ranking.proponents.append(_first(top, 1, depth))
            ranking.opponents.append(_first(bottom, -1, OPPONENTS))
    return ranking


def scans(one: Resolved, searched: Searched, progress: Progress) -> Iterator[Scan]:
    """Yield what is scanned by a method of gradients for some facts after the other."""
    assert one.encoder is not None
    assert one.method is not None
    assert one.curvature is not None
    encodings = searched.lake.table(encodings_table(one.encoder.name), at=searched.at)
    rows = rows_of(encodings, searched.texts.text_hashes.unique())
    norms = one.curvature.norms(searched.lake, searched.at) if one.method.unit_norm else None
    for start in range(0, len(searched.facts), QUERIES):
        psi = _encoded(one.encoder, searched, searched.facts[start : start + QUERIES], progress)
        queries = query_vectors(one.method, one.curvature.curvature, psi).numpy()
        yield Scan(one.encoder.name, queries, {"rows": rows, "unit_norm": one.method.unit_norm, "norms": norms})


def _encoded(row: models.Encoder, searched: Searched, facts: Sequence[Fact], progress: Progress) -> torch.Tensor:
    """Return psi of the facts' questions (facts, d) float32."""
    questions = [fact.question for fact in facts]
    if searched.lake.cluster is None:
        return encode_together(searched.loader.encoder(row), questions, progress)
    return encode_on_nodes(searched.lake.cluster, searched.loader.loads_encoder(row), questions, progress)


def _first(side: Ranked, sign: int, k: int) -> list[str]:
    found = [key for key, score in zip(side.keys, side.scores, strict=True) if sign * score > 0]
    return found[:k]


def _by_words(searched: Searched, depth: int, progress: Progress) -> list[list[str]]:
    passages, passes = open_full_text(searched.lake, searched.at), searched.texts.have
    found = []
    for fact in searched.facts:
        matched = match_texts(passages, search_text(fact.question), passes=passes, k=depth)
        found.append(_first(matched, 1, depth))
        progress(1)
    return found


def _fused(one: Resolved, searched: Searched, progress: Progress) -> list[list[str]]:
    """Join both orders as a hybrid trace does, to the depth of its parts."""
    depth = max(LEAST_DEPTH, searched.settings.depth)
    pushed = _by_gradients(one, searched, depth, progress).proponents
    matched = _by_words(searched, depth, lambda _n: None)
    constant, n = TraceSettings(method=HYBRID).rank_constant, len(searched.texts.keys)
    return [
        [hit.passage_id for hit in fuse(_ranks(a), _ranks(b), constant=constant, k=searched.settings.depth, n=n)]
        for a, b in zip(pushed, matched, strict=True)
    ]


def _ranks(keys: Sequence[str]) -> dict[str, int]:
    return {key: rank for rank, key in enumerate(keys, start=1)}


def _drawn(searched: Searched) -> list[list[str]]:
    """Order texts at random, for each fact anew."""
    keys, settings = searched.texts.keys, searched.settings
    n = min(settings.depth, len(keys))
    orders = (np.random.default_rng([settings.seed, place]) for place in range(len(searched.facts)))
    return [[keys[which] for which in draw.choice(len(keys), size=n, replace=False)] for draw in orders]


def _of_run(spec: Spec, searched: Searched) -> list[list[str]]:
    """Take the order of a run, of which passages that are not searched are left out.

    Raises InputError for a run that names a passage or document which the lake does not have.
    """
    assert spec.path is not None
    listed = read_run(spec.path, [fact.id for fact in searched.facts])
    names = sorted({name for one in listed.values() for name in one})
    known = keys_of_ids(searched.lake, searched.at, searched.texts, names)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"the run {spec.path} names {len(unknown)} passages that the lake does not have, {unknown[0]!r} among "
            "them; name passage_ids, or documents by the corpus's own ids"
        )
    orders = ([key for name in listed.get(fact.id, ()) for key in known[name]] for fact in searched.facts)
    return [list(dict.fromkeys(order))[: searched.settings.depth] for order in orders]


def describe(one: Resolved) -> dict[str, Any]:
    """Return what a method is, as the results keep it."""
    return {
        "name": one.spec.name,
        "kind": one.spec.kind,
        "encoder": one.encoder.name if one.encoder else None,
        "encoder_id": one.encoder.encoder_id if one.encoder else None,
        "curvature": one.curvature.name if one.curvature else None,
        "path": str(one.spec.path) if one.spec.path else None,
    }
