"""What retraining says of the methods: the linear datamodelling score, and answers without their proponents.

A small Llama learns the demonstration's documents about some countries, with the recipe that retrains it; a lake gets
the documents, the model and its optimizer's moments; `lake.evaluate` trains the rest. `--output FOLDER` keeps all that,
and goes on with what is there. Prints one JSON object as its last line, with scores over that of two seeds.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig

import proponent
from proponent.demo.factbook import documents, facts
from proponent.demo.train import CHECKPOINT, save_moments
from proponent.encode.checkpoint import load_tokenizer
from proponent.encode.training import token_rows, train
from proponent.schema.settings import EncoderSettings, RetrainingSettings, TrainingSettings

TRAINING = TrainingSettings(epochs=30, batch_size=8, learning_rate=6e-3)
LEFT_OUT = ("with:trackstar", "without:graddot", "bm25")
"""Methods of which the first texts are left out: each fact and method is a model."""


def some_countries(n: int) -> set[str]:
    """Return the codes of every so-manieth country."""
    codes = sorted({document["id"][:2] for document in documents()})
    return set(codes[:: len(codes) // n][:n])


def make_model(folder: Path, texts: list[str]) -> float:
    """Train the model that is asked about; return the CPU seconds."""
    tokenizer = load_tokenizer(CHECKPOINT)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    started = time.process_time()
    trained = train(config, token_rows(tokenizer, texts), TRAINING, seed=1000, pad=tokenizer.pad_token_id)
    seconds = time.process_time() - started
    trained.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_moments(trained, TRAINING, folder / "second_moments.safetensors")
    return seconds


def make_lake(folder: Path, codes: set[str]) -> float:
    """Make the lake with model, documents, encodings and words; return the CPU seconds of training."""
    rows = [document for document in documents() if document["id"][:2] in codes]
    seconds = make_model(folder / "model", [row["text"] for row in rows])
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with proponent.init(folder / "lake") as lake:
        lake.add_model(folder / "model", name="small")
        lake.ingest(folder / "rows.jsonl", corpus="factbook")
        for encoder, moments in (("with", "auto"), ("without", "none")):
            lake.encode("small", encoder=encoder, settings=EncoderSettings(moments=moments, blocks=2, side=32))
        lake.index_text()
    return seconds


def asked(codes: set[str]) -> list[dict[str, Any]]:
    """Return the facts about the countries."""
    return [
        {"prompt": fact.prompt, "target": fact.target, "relation": fact.relation, "subject": fact.country,
         "doc_keys": fact.gold}
        for fact in facts() if fact.gold[0][:2] in codes
    ]  # fmt: skip


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Make what is missing, evaluate, and print what was found."""
    codes, seconds = some_countries(options.countries), None
    if not (folder / "lake" / "proponent.toml").exists():
        seconds = make_lake(folder, codes)
    common: dict[str, Any] = {"seeds": options.seeds, "training": TRAINING, "processes": options.processes}
    with proponent.open(folder / "lake") as lake:
        lds = lake.evaluate(
            asked(codes), retraining=RetrainingSettings(subsets=options.subsets, **common), output=folder / "lds"
        )
        left_out = lake.evaluate(
            asked(codes),
            methods=LEFT_OUT,
            retraining=RetrainingSettings(counterfactuals=options.facts, without=options.without, **common),
            output=folder / "left-out",
        )
    print(lds.to_markdown(), left_out.to_markdown(), sep="\n")
    scores = {name: one["mean"] for name, one in lds.results["lds"]["methods"].items()}
    ceiling = lds.results["lds"]["between_seeds"]
    changes = left_out.results["counterfactual"]["means"] if options.facts else {}
    return {
        "training_cpu_s": seconds and round(seconds, 1),
        "lds": {name: round(mean, 3) for name, mean in scores.items()},
        "stating_texts": round(lds.results["lds"]["stating_texts"]["mean"], 3),
        "between_seeds": ceiling and round(ceiling["mean"], 3),
        "lds_vs_between_seeds": {name: round(mean / ceiling["mean"], 3) for name, mean in scores.items()}
        if ceiling
        else {},
        "left_out": {name: round(one["log_probability"]["mean"], 3) for name, one in changes.items()},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--countries", type=int, default=20)
    parser.add_argument("--subsets", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--facts", type=int, default=6, help="facts whose first texts are left out")
    parser.add_argument("--without", type=int, default=5, help="texts that are left out")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, help="folder to keep the lake, the models' outputs and the results in")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(measure(folder, options)))


if __name__ == "__main__":
    main()
