"""How much whole groups of passages influence an answer: every passage of the corpus counted, none of them read.

Notable: a score is linear in the passage's vector, so the summed influence of a source, a month, an entity or a corpus
is the dot product of the query with the group's sum, exactly (METHODS says what a method multiplies a stored vector
with). Sums are brought up to date before they answer.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from sqlalchemy import select

from proponent.encode.encoder import Encoder
from proponent.encode.methods import METHODS, Method, query_vectors
from proponent.schema import catalog as models
from proponent.schema.errors import LakeBusyError, NotFoundError
from proponent.schema.settings import GroupSettings, TraceSettings
from proponent.schema.tables import encodings_table
from proponent.store.group_sums import KindSums, Summed
from proponent.store.lake import LakeStore
from proponent.store.rows import in_lists
from proponent.store.snapshots import Snapshot, latest_snapshot

from .curvatures import NamedCurvature, scored_by
from .encoded import encode_new, means
from .group_sums import group_sums, sums_of
from .hit_columns import GROUPS
from .questions import Question
from .stored import require_gradients, scored_as

Progress = Callable[[int], object]

OVERLAPPING: Final = ("entity",)
"""Kinds of groups of which a passage may belong to several, or to none."""


def group_influence(
    lake: LakeStore,
    at: Snapshot,
    vectors: np.ndarray,
    summed: Summed,
    *,
    by: str,
    names: Sequence[str | None] | None = None,
    progress: Progress = lambda _n: None,
) -> list[pa.Table]:
    """Return the influence of groups on queries (q, d), whose vectors a method has made: for each a table of GROUPS.

    `influence` is the sum of the scores of all `n_passages` of the group that are encoded, `mean` that by their number.
    `share` is the influence by the sum of all groups' absolute influences, so that the absolute shares add up to 1;
    groups that overlap have none. `passage_share` is the group's part of all encoded passages. The highest influence
    comes first.

    Groups without a sum are one last row, where `others` says how many they are, and is 0 elsewhere; where groups
    overlap nothing else is known of them. `names` are the only groups wanted (None: passages that have none), and are
    answered with a sum or without. Raises NotFoundError for one that has no passage, or when nothing is encoded.
    """
    sums = group_sums(lake, at, summed, kinds=("all", by), progress=progress)
    groups, overlap = sums.kinds[by], by in OVERLAPPING
    asked = groups if names is None else _named(lake, at, summed, groups, by=by, names=list(dict.fromkeys(names)))
    n_passages, without = int(sums.kinds["all"].n_passages.sum()), sums.n_groups[by] - len(groups.names)
    answers = []
    for query in np.asarray(vectors, np.float64):
        rest = _rest(groups, query, total=sums.kinds["all"], overlap=overlap) if without else {}
        moved = float(np.abs(groups.sums @ query).sum()) + abs(rest.get("influence", 0.0))
        rows = _rows(asked, asked.sums @ query)
        if names is None and without:
            rows.append({"others": without, **rest})
        has_share = {*groups.names} if names is not None else None
        for row in rows:
            if "influence" in row:
                row["mean"] = row["influence"] / row["n_passages"]
                row["passage_share"] = row["n_passages"] / n_passages
                if not overlap and (has_share is None or row["name"] in has_share):
                    row["share"] = row["influence"] / moved if moved else 0.0
        answers.append(pa.Table.from_pylist([{"kind": by, **row} for row in rows], GROUPS))
    return answers


def _rows(groups: KindSums, influence: np.ndarray) -> list[dict[str, Any]]:
    rows = zip(groups.names, groups.n_passages.tolist(), influence.tolist(), strict=True)
    ranked = sorted(rows, key=lambda row: (-row[2], row[0] is None, row[0] or ""))
    return [{"name": name, "others": 0, "n_passages": n, "influence": value} for name, n, value in ranked]


def _rest(groups: KindSums, query: np.ndarray, *, total: KindSums, overlap: bool) -> dict[str, Any]:
    """Return what is known of the groups without a sum, all together: by what the others leave of the whole."""
    if overlap:
        return {}
    left = float((total.sums @ query).sum() - (groups.sums @ query).sum())
    return {"n_passages": int(total.n_passages.sum() - groups.n_passages.sum()), "influence": left}


def _named(
    lake: LakeStore, at: Snapshot, summed: Summed, groups: KindSums, *, by: str, names: Sequence[str | None]
) -> KindSums:
    """Return the sums of groups by their names: those that are kept, and others made for this once."""
    places = {name: place for place, name in enumerate(groups.names)}
    kept = [places[name] for name in names if name in places]
    found = KindSums([groups.names[place] for place in kept], *(array[kept] for array in groups[1:]))
    missing = [name for name in names if name not in places]
    if not missing:
        return found
    made = sums_of(lake, at, summed, by=by, names=missing)
    for name, n in zip(missing, made.n_passages.tolist(), strict=True):
        if not n:
            raise NotFoundError(f"no passage of {by} {name!r} is encoded")
    return KindSums([*found.names, *missing], *(np.concatenate(pair) for pair in zip(found[1:], made[1:], strict=True)))


def stored_query(lake: LakeStore, query_id: str, encoder: str) -> tuple[models.Query, torch.Tensor]:
    """Return a stored query, and psi (q, d) float32 of the queries that it is the mean over: itself if it is none.

    Raises NotFoundError for one that the lake does not have, or not by this encoder.
    """
    with lake.catalog.read() as session:
        row = session.scalars(select(models.Query).where(models.Query.query_id == query_id)).first()
    if row is None:
        raise NotFoundError(f"no query {query_id!r}; list them with: SELECT query_id, prompt, target FROM queries")  # noqa: S608
    return row, stored_queries(lake, [query_id], encoder)[query_id]


def stored_queries(lake: LakeStore, query_ids: Sequence[str], encoder: str) -> dict[str, torch.Tensor]:
    """Return psi (q, d) float32 of stored queries by their ids, as `stored_query`, in one read for all of them.

    Raises NotFoundError for one that the encoder has not encoded.
    """
    with lake.catalog.read() as session:
        asked = select(models.Query).where(models.Query.query_id.in_(query_ids))
        members = {row.query_id: _members(row.parts or []) or [row.query_id] for row in session.scalars(asked)}
    wanted = pa.array(sorted({one for ids in members.values() for one in ids}), pa.string())
    stored = lake.table("queries", at=latest_snapshot(lake.catalog))
    vectors: dict[str, list[float]] = {}
    for chosen in in_lists("query_id", wanted):
        found = stored.to_table(columns=["query_id", "vector"], filter=f"encoder = '{encoder}' AND {chosen}")
        vectors |= zip(found["query_id"].to_pylist(), found["vector"].to_pylist(), strict=True)
    for query_id, ids in members.items():
        if not all(one in vectors for one in ids):
            raise NotFoundError(
                f"encoder {encoder!r} has not encoded query {query_id!r}; trace it with this encoder first"
            )
    return {
        query_id: torch.tensor([vectors[one] for one in ids], dtype=torch.float32) for query_id, ids in members.items()
    }


def _members(parts: Sequence[dict[str, Any]]) -> list[str]:
    """Return the queries of a mean, one that was asked twice twice: no query has two equal parts."""
    firsts: dict[str, dict[str, Any]] = {}
    of_means = [part for part in parts if "query" in part]
    return [part["query"] for part in of_means if firsts.setdefault(part["query"], part) == part]


def groups_for(
    lake: LakeStore,
    at: Snapshot,
    questions: Sequence[Question],
    wanted: GroupSettings,
    settings: TraceSettings,
    *,
    encoder_row: models.Encoder,
    encoder: Encoder,
    progress: Progress = lambda _n: None,
) -> pa.Table:
    """Return the influence of groups on questions: columns prompt and target, and those of GROUPS. Nothing is stored.

    Raises what `group_influence` does, EncodingError for a question that has no encoding, ModelMismatchError when the
    encoder is not made for the method, and NotFoundError for a curvature that the encoder does not have.
    """
    method, curvature = scored_by(lake, settings, encoder_row, encoder)
    queries = [query for question in questions for query in question.queries]
    encoded = encode_new(lake, encoder, queries, name=encoder_row.name, progress=progress)
    vectors = means(questions, query_vectors(method, curvature.curvature, encoded.vectors))
    answers = _answers(lake, at, vectors, wanted, method=method, curvature=curvature, encoder_row=encoder_row)
    return pa.concat_tables(
        _asked(answer, question.prompt, question.target) for answer, question in zip(answers, questions, strict=True)
    )


def groups_for_stored(
    lake: LakeStore,
    at: Snapshot,
    query_id: str,
    wanted: GroupSettings,
    settings: TraceSettings,
    *,
    encoder_row: models.Encoder,
) -> pa.Table:
    """Return the influence of groups on a query that the lake has, as `groups_for` does, without loading the model.

    Raises NotFoundError for a query that the lake does not have, or not by this encoder.
    """
    method, curvature = scored_by(lake, settings, encoder_row, None)
    query, psi = stored_query(lake, query_id, encoder_row.name)
    vectors = query_vectors(method, curvature.curvature, psi).numpy().mean(0, keepdims=True)
    (answer,) = _answers(lake, at, vectors, wanted, method=method, curvature=curvature, encoder_row=encoder_row)
    return _asked(answer, query.prompt, query.target)


def groups_for_trace(lake: LakeStore, at: Snapshot, trace_id: str, wanted: GroupSettings) -> pa.Table:
    """Return the influence of groups on what a stored trace asked, by its method and curvature, as `groups_for_stored`.

    Its filter does not count. Raises SettingsError for a trace whose scores are not of gradients.
    """
    with lake.catalog.read() as session:
        trace = session.get_one(models.Trace, trace_id)
        require_gradients(trace_id, trace.method)
        encoder_row = session.get_one(models.Encoder, trace.encoder)
    settings = scored_as(trace.method, trace.curvature)
    return groups_for_stored(lake, at, trace.query_id, wanted, settings, encoder_row=encoder_row)


def groups_for_traces(
    lake: LakeStore, at: Snapshot, trace_ids: Sequence[str], by: Sequence[str]
) -> dict[str, dict[str, pa.Table]]:
    """Return the influence of all groups of some kinds on what stored traces asked: tables of GROUPS by trace and kind.

    As `groups_for_trace`, in one pass for all traces of one method and curvature. Raises what that does.
    """
    alike: dict[tuple[str, str, str], list[models.Trace]] = {}
    with lake.catalog.read() as session:
        for trace_id in trace_ids:
            trace = session.get_one(models.Trace, trace_id)
            require_gradients(trace_id, trace.method)
            alike.setdefault((trace.encoder or "", trace.method, trace.curvature or ""), []).append(trace)
        rows = {name: session.get_one(models.Encoder, name) for name, _, _ in alike}
    found: dict[str, dict[str, pa.Table]] = {}
    for (encoder, method_name, curvature_name), traces in alike.items():
        method, curvature = scored_by(lake, scored_as(method_name, curvature_name), rows[encoder], None)
        psi = stored_queries(lake, [trace.query_id for trace in traces], encoder)
        vectors = np.stack(
            [query_vectors(method, curvature.curvature, psi[trace.query_id]).numpy().mean(0) for trace in traces]
        )
        for one in by:
            wanted = GroupSettings(by=one)
            answers = _answers(lake, at, vectors, wanted, method=method, curvature=curvature, encoder_row=rows[encoder])
            for trace, answer in zip(traces, answers, strict=True):
                found.setdefault(trace.trace_id, {})[one] = answer
    return found


def keep_sums(
    lake: LakeStore, curvature: NamedCurvature, encoder_row: models.Encoder, progress: Progress = lambda _n: None
) -> None:
    """Bring the sums under a curvature up to date with the newest snapshot, if anything is encoded.

    Whoever asks does so first in any case. So it is left to them when another process works on the sums.
    """
    at = latest_snapshot(lake.catalog)
    if at.has(encodings_table(encoder_row.name)):
        if not curvature.is_reference:
            curvature.fill(lake, at)
        with suppress(LakeBusyError):
            group_sums(lake, at, _summed(encoder_row, METHODS["trackstar"], curvature), progress=progress)


def _answers(
    lake: LakeStore,
    at: Snapshot,
    vectors: np.ndarray,
    wanted: GroupSettings,
    *,
    method: Method,
    curvature: NamedCurvature,
    encoder_row: models.Encoder,
) -> list[pa.Table]:
    if method.unit_norm and not curvature.is_reference:
        curvature.fill(lake, at)
    summed = _summed(encoder_row, method, curvature)
    found = group_influence(lake, at, vectors, summed, by=wanted.by, names=wanted.names)
    return [_extremes(answer, wanted.k) for answer in found]


def _summed(row: models.Encoder, method: Method, curvature: NamedCurvature) -> Summed:
    """Return which sums answer for a method under a curvature."""
    if not method.unit_norm:
        return Summed(row.name, row.dim, with_lengths=True)
    return Summed(row.name, row.dim, curvature_id=None if curvature.is_reference else curvature.curvature_id)


def _extremes(answer: pa.Table, k: int | None) -> pa.Table:
    """Return the k groups of highest and the k of lowest influence, and what is told of groups without a sum."""
    n = int(pc.equal(answer["others"], 0).to_numpy().sum())
    if k is None or n <= 2 * k:
        return answer
    return pa.concat_tables([answer.slice(0, k), answer.slice(n - k)])


def _asked(answer: pa.Table, prompt: str, target: str) -> pa.Table:
    asked = [pa.array([text] * answer.num_rows, pa.string()) for text in (prompt, target)]
    return pa.table([*asked, *answer.columns], names=["prompt", "target", *answer.column_names])
