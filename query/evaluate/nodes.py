"""What the nodes of a cluster do in an evaluation: they encode questions, train models anew, and step on texts.

Notable: what a node does is what this machine would do, with one thread, and what comes of it is put together here. A
node whose checkpoint is another one, or none, ends the evaluation with a line that names it. A GPU is asked for where
there are any by what has a use for it: encoding, steps, and a command that trains. Models that are trained here take a
CPU.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

from proponent.encode.checkpoint import CheckpointFacts, require_unchanged
from proponent.encode.encoder import Encoder
from proponent.query.encoded import encode_queries
from proponent.query.questions import Question
from proponent.schema.settings import TailPatchSettings
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot

from .facts import Fact
from .retrained import train_here
from .tail import Changes, Patched, Wanted, patching
from .texts import read_texts
from .trainer import Job, Output, Task, carry_out

if TYPE_CHECKING:
    from proponent.store.ray_cluster import RayCluster

_TOGETHER: Final = 64
"""Questions that are encoded at a time."""
_STEPS: Final = 256
"""Texts that a part has at most: what a node that dies has to step on again, and what a model is loaded for."""


def encode_together(
    encoder: Encoder, questions: Sequence[Question], progress: Callable[[int], object] = lambda _n: None
) -> torch.Tensor:
    """Return psi of questions (q, d) float32. Raises EncodingError for one that has no encoding.

    Some of them at a time, the same ones on one machine and on nodes: among others, last bits may be others.
    """
    parts = [questions[start : start + _TOGETHER] for start in range(0, len(questions), _TOGETHER)]
    return torch.cat([encode_queries(encoder, part, progress).vectors for part in parts])


def encode_on_nodes(
    cluster: "RayCluster",
    load: Callable[[LakeStore], Encoder],
    questions: Sequence[Question],
    progress: Callable[[int], object],
) -> torch.Tensor:
    """Return the same from the nodes of a cluster, each of which loads the encoder by `load`.

    Raises the same, and what a node has against its checkpoint.
    """
    n = -(-len(questions) // _TOGETHER)
    each = -(-n // cluster.workers(on_gpu=True)) * _TOGETHER
    parts = [questions[start : start + each] for start in range(0, len(questions), each)]
    found: dict[int, np.ndarray] = {}
    for place, vectors in cluster.each(_encode, load, parts, on_gpu=True):
        found[place] = vectors
        progress(len(vectors))
    return torch.from_numpy(np.concatenate([found[place] for place in range(len(parts))]))


def _encode(lake: LakeStore, load: Callable[[LakeStore], Encoder], questions: Sequence[Question]) -> np.ndarray:
    from proponent.store.ray_cluster import naming_node

    torch.set_num_threads(1)
    with naming_node():
        encoder = load(lake)
    vectors: np.ndarray = encode_together(encoder, questions).numpy()
    return vectors


class _Trained(NamedTuple):
    """What all models have in common."""

    job: Job
    checkpoint: CheckpointFacts | None
    """None where a command trains."""


def train_on_nodes(
    cluster: "RayCluster", checkpoint: CheckpointFacts | None, job: Job, tasks: Sequence[Task]
) -> Iterator[tuple[Task, Output]]:
    """Train the models of some tasks on the nodes of a cluster, each on a CPU; a command gets a GPU if there are any.

    `checkpoint` is that of the job. Raises what a task failed with, WorkerError when its processes die time and again,
    and what a node has against its checkpoint.
    """
    for place, output in cluster.each(_train, _Trained(job, checkpoint), tasks, on_gpu=bool(job.command)):
        yield tasks[place], output


def _train(_lake: LakeStore, trained: _Trained, task: Task) -> Output:
    job = trained.job
    if trained.checkpoint is None:  # by a process that is guarded: Ray may kill this one, and not what it has started
        [(_, output)] = train_here(job, [task], processes=1)
        return output
    _require_same(trained.checkpoint)
    torch.set_num_threads(job.threads)
    return carry_out(job, task)


@cache
def _require_same(checkpoint: CheckpointFacts) -> None:
    from proponent.store.ray_cluster import naming_node

    with naming_node():
        require_unchanged(checkpoint)


class _Stepped(NamedTuple):
    """What all steps have in common."""

    load: Callable[[LakeStore], Patched]
    at: Snapshot
    facts: Sequence[Fact]
    settings: TailPatchSettings


def step_on_nodes(
    lake: LakeStore,
    at: Snapshot,
    load: Callable[[LakeStore], Patched],
    facts: Sequence[Fact],
    settings: TailPatchSettings,
    *,
    wanted: Mapping[str, Wanted],
    tell: Callable[[str, int], Callable[[int], object]],
) -> Iterator[tuple[str, Changes]]:
    """Step on the wanted texts in parts on the nodes of a lake's cluster; yield names as soon as they have all theirs.

    Each part loads the model by `load`. Raises as `step_here`, and what a node has against its checkpoint.
    """
    assert lake.cluster is not None
    parts = _parts(wanted, lake.cluster.workers(on_gpu=True))
    progress = tell("tail-patch", sum(len(part.keys) for part in parts))
    changes: Changes = {}
    waiting = list(wanted)

    def known() -> Iterator[tuple[str, Changes]]:
        for name in list(waiting):
            if all((place, key) in changes for place, keys in wanted[name].items() for key in keys):
                waiting.remove(name)
                yield name, changes

    yield from known()  # those that list nothing
    shared = _Stepped(load, at, facts, settings)
    for place, found in lake.cluster.each(_step, shared, [part.wanted for part in parts], on_gpu=True):
        changes |= found
        progress(len(parts[place].keys))
        yield from known()


class _Part(NamedTuple):
    """Some texts, and the facts for which each is stepped on."""

    keys: Sequence[str]
    wanted: Wanted


def _parts(wanted: Mapping[str, Wanted], n_workers: int) -> list[_Part]:
    """Cut what all names want, each text once, into parts of about as many texts; a name's are in as few as can be."""
    of_text: dict[str, dict[int, None]] = defaultdict(dict)
    for of_facts in wanted.values():
        for place, keys in of_facts.items():
            for key in keys:
                of_text[key][place] = None
    texts = list(of_text)
    n = min(len(texts), max(n_workers, -(-len(texts) // _STEPS)))
    return [_part(texts[len(texts) * which // n : len(texts) * (which + 1) // n], of_text) for which in range(n)]


def _part(keys: Sequence[str], of_text: Mapping[str, Mapping[int, None]]) -> _Part:
    wanted: dict[int, list[str]] = defaultdict(list)
    for key in keys:
        for place in of_text[key]:
            wanted[place].append(key)
    return _Part(keys, dict(wanted))


def _step(lake: LakeStore, stepped: _Stepped, wanted: Wanted) -> Changes:
    from proponent.store.ray_cluster import naming_node

    torch.set_num_threads(1)
    with naming_node():
        patched = stepped.load(lake)
    with patching(patched, stepped.facts, stepped.settings) as taking:
        return taking.changes(wanted, lambda keys: read_texts(lake, stepped.at, keys), lambda _n: None)
