"""Measuring the machine at hand, for some ten seconds, with the code that will do the work.

Notable: large models are measured by a few of their layers, since what decides the rate is how wide they are.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psutil

from proponent.schema.settings import EncoderSettings

from .costs import passage_flops
from .machines import HERE, Machine
from .shape import shape_of_config
from .workload import Workload

if TYPE_CHECKING:
    from proponent.encode.encoder import Projector
    from proponent.encode.gradients import Example

_MOST_WEIGHTS: Final = 6e7
"""Weights of the layers that are measured."""
_LEAST_TOKENS: Final = 1536
"""Tokens of one measurement on a CPU: two batches. A GPU gets as many texts as an encoding run gives it at once."""
_ENCODE_SHARE: Final = 0.4
_OTHER_SHARE: Final = 0.1
"""Shares of the time that one measurement takes."""
_SCANNED_BYTES: Final = 1 << 26
_QUESTIONS: Final = 64
_MOST_SIDE: Final = 32
"""Side of the curvature that is decomposed; one of 4,096 dimensions would take minutes."""

Tell = Callable[[str], object]


def calibrate(
    config: Any,
    work: Workload,
    *,
    price: float = 0.0,
    seconds: float = 10.0,
    tell: Tell = lambda _step: None,
) -> Machine:
    """Measure what this machine does for a model's configuration and a workload, in about so many seconds.

    `tell` hears of each step.
    """
    tell("encoding")
    encode_flops = _encode_flops(config, work, within=_ENCODE_SHARE * seconds)
    tell("decomposing")
    double_flops = _double_flops(min(work.settings.side, _MOST_SIDE), within=_OTHER_SHARE * seconds)
    tell("scanning")
    scan_bytes, product_flops, read_bytes = _scan_rates(work, within=_OTHER_SHARE * seconds)
    return Machine(
        name=HERE,
        encode_flops=encode_flops,
        double_flops=double_flops,
        product_flops=product_flops,
        scan_bytes=scan_bytes,
        read_bytes=read_bytes,
        memory=float(psutil.virtual_memory().available),
        price=price,
    )


def _encode_flops(config: Any, work: Workload, *, within: float) -> float:
    """Return FLOP/s of encoding passages of the workload's length, whitening included."""
    import torch

    from proponent.encode.batches import in_batches
    from proponent.encode.curvature import apply
    from proponent.ingest.encoding import ENCODE_AT_ONCE

    projector, some = _part_of_model(config, work)
    tokens = min(work.passage_tokens, projector.checkpoint.facts.context_length)
    n = ENCODE_AT_ONCE if projector.device.type == "cuda" else -(-_LEAST_TOKENS // tokens)
    examples = _examples(projector, tokens, n=n)
    matrix = torch.eye(some.settings.side**2, device=projector.device).expand(2 * some.settings.blocks, -1, -1)

    def once() -> None:
        for _places, (phi, _losses) in in_batches(examples, projector.phi, budget=projector.budget):
            apply(matrix, phi).cpu()  # as what is stored; a GPU has then done what it was told to

    return passage_flops(some, tokens) * len(examples) / _seconds(once, within=within)


def _part_of_model(config: Any, work: Workload) -> "tuple[Projector, Workload]":
    """Return an encoder, not fitted, of the first layers of a model with random weights, and its workload."""
    import torch
    from transformers import AutoModelForCausalLM

    from proponent.encode.checkpoint import Checkpoint, CheckpointFacts, device_here
    from proponent.encode.encoder import Projector
    from proponent.encode.layers import freeze

    shape = work.shape
    layers = max(1, min(shape.layers, int(_MOST_WEIGHTS / (shape.covered / shape.layers))))
    config = deepcopy(config)
    text = config.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    settings = EncoderSettings(side=work.settings.side, blocks=min(work.settings.blocks, layers), moments="none")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False).float()  # type: ignore[no-untyped-call]
    model.to(device_here())
    freeze(model)
    context = getattr(text, "max_position_embeddings", None) or work.passage_tokens
    facts = CheckpointFacts(Path(), type(model).__name__, layers, context, "", "")
    part = Workload(
        shape=shape_of_config(config), settings=settings, tokens=work.passage_tokens, passage_tokens=work.passage_tokens
    )
    return Projector(Checkpoint(facts, model, None), settings, None), part


def _examples(projector: "Projector", tokens: int, *, n: int) -> "list[Example]":
    from proponent.encode.gradients import Example

    words = projector.checkpoint.model.get_input_embeddings().num_embeddings
    drawn = np.random.default_rng(0).integers(0, words, (n, tokens))
    return [Example(tuple(row)) for row in drawn.tolist()]


def _double_flops(side: int, *, within: float) -> float:
    """Return FLOP/s of fitting a curvature, counted as `costs.fit_flops` does."""
    import torch

    from proponent.encode.checkpoint import device_here
    from proponent.encode.curvature import SecondMoment, Whitening

    size = side**2
    phi = torch.from_numpy(np.random.default_rng(0).standard_normal((4 * size, 1, size), np.float32)).to(device_here())

    def once() -> None:
        moment = SecondMoment(1, size, device=phi.device)
        moment.add(phi)
        Whitening.of(moment.shrunk()[0]).power(-0.5)

    return (2 * len(phi) * size**2 + 12 * size**3) / _seconds(once, within=within)


def _scan_rates(work: Workload, *, within: float) -> tuple[float, float, float]:
    """Return bytes decoded a second, FLOP/s of products, and bytes a second from the disk of temporary files."""
    import lance

    with tempfile.TemporaryDirectory(prefix="proponent-plan-") as folder:
        path = Path(folder) / "encodings.lance"
        n_rows = _write_encodings(path, work, n_bytes=round(_SCANNED_BYTES * min(1.0, within)))
        encodings = lance.dataset(str(path))
        one, many = (scan_seconds(encodings, work.settings.dim, n, within=within) for n in (1, _QUESTIONS))
        read_bytes = _read(list(path.glob("data/*")))
    products = 2 * n_rows * work.settings.dim
    product_flops = products * (_QUESTIONS - 1) / max(many - one, 1e-9)
    decoding = max(one - products / product_flops, one / 10)
    return n_rows * work.row_bytes / decoding, product_flops, read_bytes


def _write_encodings(path: Path, work: Workload, *, n_bytes: int) -> int:
    import lance
    import pyarrow as pa

    from proponent.ingest.encoding import ENCODE_AT_ONCE
    from proponent.schema.tables import encodings_schema
    from proponent.store.codes import codes_arrays, quantise

    dim, n_rows = work.settings.dim, max(64, n_bytes // work.row_bytes)
    drawn = np.random.default_rng(0).standard_normal((64, dim), np.float32)
    unit = np.resize(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), (n_rows, dim))
    columns = {
        "text_hash": [f"{place:026d}" for place in range(n_rows)],
        "norm": np.ones(n_rows, np.float32),
        "loss": np.ones(n_rows, np.float32),
        "n_tokens": np.ones(n_rows, np.int32),
    }
    schema = encodings_schema(dim, work.codes)
    rows = pa.table(columns | codes_arrays(quantise(unit, work.codes))).select(schema.names).cast(schema)
    # In files as large as an encoding leaves them: of one file Lance reads half as many bytes a second.
    lance.write_dataset(rows, str(path), schema=schema, max_rows_per_file=ENCODE_AT_ONCE)
    return n_rows


def scan_seconds(encodings: Any, dim: int, n_questions: int, *, within: float) -> float:
    """Return the seconds of one exact scan of an encodings table for some random questions."""
    from proponent.store.scan import exact_scan

    questions = np.random.default_rng(1).standard_normal((n_questions, dim), np.float32)
    return _seconds(lambda: exact_scan(encodings, questions, k=10, unit_norm=True), within=within)


def _read(files: Sequence[Path]) -> float:
    """Return bytes a second of reading files, from the disk where the system lets its cache be told so."""
    n_bytes, seconds = 0, 0.0
    for file in files:
        with file.open("rb") as opened:
            if hasattr(os, "posix_fadvise"):
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            begun = time.perf_counter()
            n_bytes += len(opened.read())
            seconds += time.perf_counter() - begun
    return n_bytes / max(seconds, 1e-9)


def _seconds(once: Callable[[], object], *, within: float) -> float:
    """Return the median seconds of some runs, after one that warms up; at least two, however long they take."""
    once()
    taken: list[float] = []
    while len(taken) < 2 or sum(taken) < within:
        begun = time.perf_counter()
        once()
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))
