"""What a query's vector finds: candidates, hits on both sides, and how they stand among random texts."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proponent.encode.methods import Method
from proponent.schema import catalog as models
from proponent.schema.settings import TraceSettings
from proponent.store.lake import LakeStore
from proponent.store.matching import marked
from proponent.store.snapshots import Snapshot

from .curvatures import NamedCurvature
from .recall import UsableIndex
from .search import Found, SoFar, find_candidates, search
from .session import Session
from .standing import Standing, random_texts, standings


class Answers(NamedTuple):
    """What was found for some queries, in their order."""

    n_candidates: int
    found: list[Found]
    standings: list[Standing]


def answer(
    lake: LakeStore,
    session: Session,
    at: Snapshot,
    vectors: np.ndarray,
    settings: TraceSettings,
    *,
    encoder_row: models.Encoder,
    method: Method,
    curvature: NamedCurvature,
    index: UsableIndex | None,
    keep_norms: bool,
    progress: Callable[[int], object] = lambda _n: None,
    so_far: SoFar | None = None,
) -> Answers:
    """Search with vectors (q, d) float32 that a method has made.

    An exact search counts which candidates score lower than a hit, one by an index asks a sample of them. Norms under a
    curvature that are missing are published with `keep_norms`. `progress` is told passages, `so_far` is as in
    `search`. Raises what `find_candidates` does.
    """
    candidates = find_candidates(lake, session, at, encoder=encoder_row.name, where=settings.filter)
    norms = None
    if method.unit_norm:
        if keep_norms:
            norms = curvature.norms(lake, at)
        else:
            random = pa.array(random_texts(lake, session, at, encoder=encoder_row.name))
            needed = pc.or_(candidates.rows, marked(len(candidates.rows), [random]))
            norms = curvature.known_norms(lake, at, rows=needed)
    found = search(
        lake,
        session,
        at,
        encoder=encoder_row.name,
        queries=vectors,
        candidates=candidates,
        k=settings.k,
        unit_norm=method.unit_norm,
        index=index,
        norms=norms,
        scan=settings,
        progress=progress,
        so_far=so_far,
    )
    stood = standings(
        lake,
        session,
        at,
        vectors,
        encoder=encoder_row.name,
        unit_norm=method.unit_norm,
        norms=norms,
        among=None if index is None else candidates,
    )
    if index is not None:
        found = [
            Found(*([standing.placed(hit) for hit in side] for side in both))
            for both, standing in zip(found, stood, strict=True)
        ]
    return Answers(len(candidates), found, stood)
