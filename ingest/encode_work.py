"""What a worker does with a unit of an encoding run: texts in, encodings out, unseen until they are published."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from proponent.encode.encoder import Encoder
from proponent.encode.gradients import Example
from proponent.encode.tokens import passage_examples
from proponent.schema import catalog as models
from proponent.schema.tables import encodings_table
from proponent.store.codes import codes_arrays, quantise
from proponent.store.commit import WrittenBatch, remove_files, write_batch
from proponent.store.fidelity import FidelitySample
from proponent.store.lake import LakeStore

from .work import Report


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
    tokens: int = field(default=0, compare=False)
    """Tokens of the texts that were encoded."""
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
        return {"counts": self.counts, "batch": self.batch and self.batch.to_json(), "fidelity": self.fidelity}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "UnitResult":
        """Read a result from the catalog."""
        batch = kept["batch"]
        return cls(kept["counts"], batch and WrittenBatch.from_json(batch), kept["fidelity"])


@dataclass
class EncodeWork:
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

    def do(self, work: dict[str, Any], report: Report) -> dict[str, Any]:
        """Encode a range of the run's texts, `start` to `stop`, and write what came out."""
        some = self.texts.slice(work["start"], work["stop"] - work["start"])
        counts = dict.fromkeys(("encoded", "too_long", "truncated", "without_loss", "not_finite", "tokens"), 0)
        examples = passage_examples(self.encoder.projector.checkpoint.tokenizer, some["text"].to_pylist())
        fitting = [self._fit(example, counts) for example in examples]
        kept = [(key, one) for key, one in zip(some["text_hash"].to_pylist(), fitting, strict=True) if one]
        encoded = self.encoder.encode([example for _, example in kept], progress=_running_total(report))
        norms = encoded.vectors.norm(dim=1)
        sound = torch.isfinite(norms) & torch.isfinite(encoded.losses) & (norms > 0)
        counts["not_finite"] = int((~sound).sum())
        places = torch.nonzero(sound).flatten().tolist()
        counts["encoded"] = len(places)
        if not places:
            return UnitResult(counts, None, None).to_json()
        vectors = (encoded.vectors[places] / norms[places, None]).numpy()
        lengths = [len(kept[place][1].token_ids) for place in places]
        counts["tokens"] = sum(lengths)
        data = pa.table(
            {
                "text_hash": [kept[place][0] for place in places],
                "norm": norms[places].numpy(),
                "loss": encoded.losses[places].numpy(),
                "n_tokens": np.array(lengths, dtype=np.int32),
                **codes_arrays(quantise(vectors, self.encoder_row.codes)),
            }
        )
        fidelity = self._fidelity(vectors) if work["start"] == 0 else None
        return UnitResult(counts, write_batch(self.lake, self._table, data), fidelity).to_json()

    def undo(self, result: dict[str, Any]) -> None:
        """Remove encodings that nobody takes."""
        batch = UnitResult.from_json(result).batch
        if batch is not None:
            remove_files(self.lake, batch)

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

    def _fidelity(self, vectors: np.ndarray) -> dict[str, Any] | None:
        """Measure the codes on the first texts, which their hashes' order draws at random."""
        sample = FidelitySample()
        sample.offer(vectors)
        before = self.encoder_row.fidelity or {"sample": 0}
        return sample.measure(self.encoder_row.codes, against="float32", at_least=before["sample"])


def _running_total(report: Report) -> Callable[[int], None]:
    done = 0

    def progress(n_texts: int) -> None:
        nonlocal done
        done += n_texts
        report({"texts": done})

    return progress
