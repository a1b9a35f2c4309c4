"""Plans against what happened: models of three sizes, encoded and asked, and scans of three sizes.

    python benchmarks/plan.py            # some five minutes on two cores
    python benchmarks/plan.py --quick    # smaller ones, to see that it runs

Every plan is calibrated on this machine just before, for as long as `proponent plan` takes for it, and says what the
same work will take; the ratio is what the plan says over what was measured. Documents are generated, models are Llamas
with random weights. Prints one JSON object as its last line.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("LANCE_LOG", "error")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import lance
import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import proponent
from proponent.ingest.encoding import ENCODE_AT_ONCE
from proponent.plan.asked import Asked
from proponent.plan.calibrate import calibrate
from proponent.plan.calibrate import scan_seconds as measured_scan_seconds
from proponent.plan.costs import Line, scan_seconds
from proponent.plan.shape import shape_of_config
from proponent.plan.workload import Workload
from proponent.schema.settings import EncoderSettings
from proponent.schema.tables import encodings_schema
from proponent.store.codes import codes_arrays, quantise

_VOCABULARY = 2000
_PASSAGE_TOKENS = 100


class Size(NamedTuple):
    """A model, an encoder and a corpus."""

    width: int
    layers: int
    side: int
    passages: int


_SIZES = {"1M": Size(128, 4, 16, 4000), "6M": Size(256, 6, 32, 2000), "28M": Size(512, 8, 32, 400)}
_SCANS = {"20,000 x 1,024": (20_000, 16), "50,000 x 4,096": (50_000, 32), "8,000 x 16,384": (8_000, 64)}


def documents(n: int) -> Iterator[str]:
    """Yield documents of _PASSAGE_TOKENS words as JSON."""
    chance = random.Random(0)  # noqa: S311  (the same corpus in every run)
    for place in range(n):
        words = " ".join(f"w{chance.randrange(_VOCABULARY - 1)}" for _ in range(_PASSAGE_TOKENS))
        yield json.dumps({"id": str(place), "text": words})


def save_checkpoint(folder: Path, size: Size) -> None:
    """Save a model with random weights, and a tokenizer of words."""
    config = LlamaConfig(
        hidden_size=size.width,
        intermediate_size=size.width * 3,
        num_hidden_layers=size.layers,
        num_attention_heads=size.width // 64,
        vocab_size=_VOCABULARY,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    words = {f"w{place}": place for place in range(_VOCABULARY - 1)} | {"<unk>": _VOCABULARY - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))  # noqa: S106  (a token of text)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)  # noqa: S106


def seconds_of(lake: proponent.Lake, kind: str) -> float:
    """Return the seconds of the lake's newest run of a kind."""
    [row] = lake.sql(
        "SELECT epoch(finished_at - started_at) AS seconds FROM runs WHERE kind = ? ORDER BY started_at DESC LIMIT 1",
        [kind],
    ).to_dicts()
    return float(row["seconds"])


def value(lines: list[Line], step: str, quantity: str) -> float:
    """Return one quantity of a plan."""
    [found] = [line.value for line in lines if (line.step, line.quantity) == (step, quantity)]
    return found


def encode(folder: Path, name: str, size: Size) -> dict[str, float]:
    """Plan for a lake, then encode it; return what was planned over what it took."""
    save_checkpoint(folder / "model", size)
    (folder / "corpus.jsonl").write_text("\n".join(documents(size.passages)), "utf-8")
    encoder: dict[str, Any] = {"side": size.side, "blocks": 2, "moments": "none"}
    with proponent.init(folder / "lake") as lake:
        lake.add_model(folder / "model", name="model")
        lake.ingest([folder / "corpus.jsonl"], corpus="words")
    lines, _ = Asked(lake=folder / "lake", encoder=encoder, workload={}).plan()
    with proponent.open(folder / "lake") as lake:
        lake.encode("model", settings=EncoderSettings(**encoder))
        took = {"fit": seconds_of(lake, "fit"), "encode": seconds_of(lake, "encode")}
    stored = sum(file.stat().st_size for file in (folder / "lake" / "tables").glob("encodings_*/data/*"))
    said = {
        "fit": value(lines, "fit", "time on one device"),
        "encode": value(lines, "encode", "device time") * 3600,
        "bytes": value(lines, "store", "encodings"),
    }
    told = {**took, "bytes": float(stored)}
    for what, planned in said.items():
        print(f"  {name:>4} {what:7} planned {planned:14,.1f}   measured {told[what]:14,.1f}")
    return {f"{name}_{what}": round(said[what] / told[what], 3) for what in said}


def scan(folder: Path, name: str, n_rows: int, side: int, *, questions: int = 16) -> dict[str, float]:
    """Plan a scan, then do it; return what was planned over what it took."""
    config = LlamaConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=99
    )
    settings = EncoderSettings(side=side, blocks=2, moments="none")
    work = Workload(shape=shape_of_config(config), settings=settings, tokens=n_rows, passage_tokens=1, batch=questions)
    said = scan_seconds(work, calibrate(config, work), devices=1)
    _write(folder / "encodings.lance", n_rows, settings.dim)
    encodings = lance.dataset(str(folder / "encodings.lance"))
    took = measured_scan_seconds(encodings, settings.dim, questions, within=1.0)
    print(f"  scan of {name:16} planned {said:8.3f} s   measured {took:8.3f} s")
    return {f"scan_{n_rows}x{settings.dim}": round(said / took, 3)}


def _write(path: Path, n_rows: int, dim: int) -> None:
    schema, chance = encodings_schema(dim, "int8"), np.random.default_rng(0)
    for start in range(0, n_rows, ENCODE_AT_ONCE):  # a file each, as an encoding leaves them
        drawn = chance.standard_normal((min(ENCODE_AT_ONCE, n_rows - start), dim), np.float32)
        unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        ones = np.ones(len(unit), np.float32)
        columns = {
            "text_hash": [f"{place:026d}" for place in range(start, start + len(unit))],
            "norm": ones,
            "loss": ones,
            "n_tokens": ones.astype(np.int32),
        }
        rows = pa.table(columns | codes_arrays(quantise(unit, "int8"))).select(schema.names).cast(schema)
        lance.write_dataset(rows, str(path), schema=schema, mode="append" if start else "create")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    quick = parser.parse_args().quick
    found: dict[str, float] = {}
    begun = time.perf_counter()
    for name, size in _SIZES.items():
        with tempfile.TemporaryDirectory(prefix="proponent-plan-") as folder:
            found |= encode(Path(folder), name, size._replace(passages=size.passages // (10 if quick else 1)))
    for name, (n_rows, side) in _SCANS.items():
        with tempfile.TemporaryDirectory(prefix="proponent-plan-") as folder:
            found |= scan(Path(folder), name, n_rows // (10 if quick else 1), side)
    print(f"  {time.perf_counter() - begun:.0f} s in all")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
