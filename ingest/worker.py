"""A worker: takes units of an encoding run, encodes them and writes what came out, unseen until it is published.

`python -m proponent.ingest.worker LAKE RUN THREADS` works until nothing is left, or until its standard input closes:
that is how the process that started it tells it to stop, and what happens when that process dies.
"""

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from proponent.encode.encoder import Encoder
from proponent.encode.gradients import Example
from proponent.encode.tokens import passage_examples
from proponent.schema import catalog as models
from proponent.schema.errors import LeaseLostError, ProponentError
from proponent.schema.tables import encodings_table
from proponent.store.codes import codes_arrays, quantise
from proponent.store.commit import WrittenBatch, write_batch
from proponent.store.fidelity import FidelitySample
from proponent.store.lake import LakeStore, open_store
from proponent.store.units import HeldUnit, count_units, take_unit, working_on

_POLL_S = 0.5


@dataclass
class EncodeCounts:
    """What became of the texts that had no encoding."""

    encoded: int = 0
    too_long: int = 0
    truncated: int = 0
    without_loss: int = 0
    not_finite: int = 0
    before: int = 0
    """Encodings that there were already."""
    fidelity: dict[str, Any] | None = None
    """How well the codes keep the order of scores, where this run measured it."""

    def add(self, more: dict[str, int]) -> None:
        """Add the counts of a unit."""
        for name, number in more.items():
            setattr(self, name, getattr(self, name) + number)


@dataclass
class UnitResult:
    """What came of a unit."""

    counts: dict[str, int]
    batch: WrittenBatch | None
    fidelity: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """Return the result as the catalog keeps it."""
        batch = vars(self.batch) if self.batch else None
        return {"counts": self.counts, "batch": batch, "fidelity": self.fidelity}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "UnitResult":
        """Read a result from the catalog."""
        batch = kept["batch"]
        if batch is not None:
            batch = WrittenBatch(**batch | {name: tuple(batch[name]) for name in ("fragments", "files")})
        return cls(kept["counts"], batch, kept["fidelity"])


@dataclass
class EncodeWorker:
    """Encodes texts by their places in a run's list of texts."""

    lake: LakeStore
    encoder_row: models.Encoder
    encoder: Encoder
    truncate: bool
    texts: pa.Table
    """text_hash and text of every text of the run, in order."""
    _table: str = field(init=False)

    def __post_init__(self) -> None:
        self._table = encodings_table(self.encoder_row.name)

    def work_off(self, run_id: str, *, stop: threading.Event) -> None:
        """Take one unit after the other until none is left, or until somebody says stop."""
        while not stop.is_set():
            unit = take_unit(self.lake.catalog, run_id)
            if unit is not None:
                self.do(unit)
            elif count_units(self.lake.catalog, run_id).get("leased"):
                time.sleep(_POLL_S)  # its worker may die
            else:
                return

    def do(self, unit: HeldUnit) -> None:
        """Do one unit. Why it cannot be done is handed in, too; an interruption hands the unit back."""
        try:
            with working_on(unit):
                result = self._encode(unit)
            unit.finish(result.to_json())
        except LeaseLostError:  # another worker does it, since this one was held for dead
            return
        except ProponentError as error:
            unit.fail(str(error))
            raise
        except BaseException:
            unit.hand_back()
            raise

    def _encode(self, unit: HeldUnit) -> UnitResult:
        some = self.texts.slice(unit.work["start"], unit.work["stop"] - unit.work["start"])
        counts = {"encoded": 0, "too_long": 0, "truncated": 0, "without_loss": 0, "not_finite": 0}
        examples = passage_examples(self.encoder.projector.checkpoint.tokenizer, some["text"].to_pylist())
        fitting = [self._fit(example, counts) for example in examples]
        kept = [(key, one) for key, one in zip(some["text_hash"].to_pylist(), fitting, strict=True) if one]
        encoded = self.encoder.encode([example for _, example in kept])
        norms = encoded.vectors.norm(dim=1)
        sound = torch.isfinite(norms) & torch.isfinite(encoded.losses) & (norms > 0)
        counts["not_finite"] = int((~sound).sum())
        places = torch.nonzero(sound).flatten().tolist()
        counts["encoded"] = len(places)
        if not places:
            return UnitResult(counts, None, None)
        vectors = (encoded.vectors[places] / norms[places, None]).numpy()
        data = pa.table(
            {
                "text_hash": [kept[place][0] for place in places],
                "norm": norms[places].numpy(),
                "loss": encoded.losses[places].numpy(),
                "n_tokens": np.array([len(kept[place][1].token_ids) for place in places], dtype=np.int32),
                **codes_arrays(quantise(vectors, self.encoder_row.codes)),
            }
        )
        return UnitResult(counts, write_batch(self.lake, self._table, data), self._fidelity(unit, vectors))

    def _fit(self, example: Example, counts: dict[str, int]) -> Example | None:
        if len(example.token_ids) > self.encoder.context_length:
            if not self.truncate:
                counts["too_long"] += 1
                return None
            counts["truncated"] += 1
            example = Example(example.token_ids[: self.encoder.context_length])
        if example.n_loss < 1:
            counts["without_loss"] += 1
            return None
        return example

    def _fidelity(self, unit: HeldUnit, vectors: np.ndarray) -> dict[str, Any] | None:
        """Measure the codes on the first texts, which their hashes' order draws at random."""
        if unit.ordinal > 0:
            return None
        sample = FidelitySample()
        sample.offer(vectors)
        before = self.encoder_row.fidelity or {"sample": 0}
        return sample.measure(self.encoder_row.codes, against="float32", at_least=before["sample"])


def worklist_path(lake: LakeStore, run_id: str) -> Path:
    """Return the file that lists the texts of a run."""
    return lake.root / "work" / f"{run_id}.arrow"


def write_worklist(path: Path, texts: pa.Table) -> None:
    """Write the texts of a run where its workers find them."""
    path.parent.mkdir(exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, texts.schema) as file:
        file.write_table(texts)


def read_worklist(path: Path) -> pa.Table:
    """Map the texts of a run into memory."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def main(root: str, run_id: str, threads: str) -> None:
    """Work on a run of a lake with so many threads."""
    from .encoding import load_encoder

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the whole group; the parent decides what it means
    torch.set_num_threads(int(threads))
    stop = threading.Event()
    threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True).start()
    lake = open_store(Path(root))
    try:
        with lake.catalog.read() as session:
            run = session.get_one(models.Run, run_id)
            row = session.get_one(models.Encoder, run.settings["encoder"])
        worker = EncodeWorker(
            lake, row, load_encoder(lake, row), run.settings["truncate"], read_worklist(worklist_path(lake, run_id))
        )
        worker.work_off(run_id, stop=stop)
    finally:
        lake.close()


def _stop_with_parent(stop: threading.Event) -> None:
    while os.read(0, 1):  # not through sys.stdin, whose lock Python cannot take back from a thread when it ends
        pass
    stop.set()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ProponentError as error:
        raise SystemExit(f"worker: {error}") from None
