"""Train the demonstration's tokenizer and model from nothing: `python -m proponent.demo.train [--out DIR] [--seed N]`.

- A byte-level BPE tokenizer of 4,096 tokens and a Llama of 1.4 million parameters, both made from the
  documents of `factbook`.
- Every sequence, passage or prompt, starts with BOS; the tokenizer puts it there. EOS is appended here only, so that
  the model learns where a document ends while no encoding ever contains it.
- AdamW's second moments are kept as row and column means, which is what the encoder's correction needs.
- The same seed on the same machine gives the same files, byte for byte. Another number of threads adds in another
  order, and so gives another, equally good, model.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from safetensors.torch import save
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import LlamaConfig, PreTrainedTokenizerFast

from proponent.encode.training import Progress, Trained, token_rows
from proponent.encode.training import train as fit
from proponent.schema.settings import TrainingSettings

from .factbook import TOKEN_BUDGET, documents

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The checkpoint that is kept with the package."""

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
_VOCABULARY = 4096
_POSITIONS = 64  # BOS, TOKEN_BUDGET tokens, EOS


def train(
    out: Path, *, seed: int = 0, progress: Progress | None = None, recipe: TrainingSettings | None = None
) -> None:
    """Make the checkpoint: tokenizer, model in bfloat16, second moments.

    Args:
        out: the folder, made when missing; files of the same names are replaced.
        seed: decides the first weights and the order of the documents.
        progress: called after every step.
        recipe: settings other than the defaults, such as fewer epochs.

    Raises:
        ModuleNotFoundError: the package with the text is not installed.
        ValueError: a document does not fit the model.
    """
    recipe = recipe or TrainingSettings()
    out.mkdir(parents=True, exist_ok=True)
    texts = [document["text"] for document in documents()]
    tokenizer = make_tokenizer(texts, vocabulary=_VOCABULARY, positions=_POSITIONS)
    rows = _rows(tokenizer, texts)
    pad = int(tokenizer.pad_token_id)
    trained = fit(architecture(tokenizer), rows, recipe, seed=seed, pad=pad, progress=progress)

    tokenizer.save_pretrained(out)
    trained.model.bfloat16().save_pretrained(out)
    save_moments(trained, recipe, out / "second_moments.safetensors")


# Tokenizer


def make_tokenizer(texts: Sequence[str], *, vocabulary: int, positions: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of so many tokens that puts BOS in front of everything, and nothing behind.

    `positions` are the tokens that its model reads at once.
    """
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, backend.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )


# Model


def architecture(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Return what the model is made of."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _rows(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Tokenise to BOS, text, EOS; refuse a text that does not fit, for a cut row would teach a broken ending."""
    rows = token_rows(tokenizer, texts)
    for text, row in zip(texts, rows, strict=True):
        if len(row) > TOKEN_BUDGET + 2:
            raise ValueError(f"a document has {len(row) - 2} tokens, and the model takes {TOKEN_BUDGET}: {text!r}")
    return rows


# Second moments


def factored_moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Row and column means of AdamW's `exp_avg_sq`, for the weight of every linear layer with weights of its own.

    The moment of a weight W of shape (out, in) becomes `W.row` (out,) and `W.col` (in,), so that
    V = row col^T / mean(row), in squared nats; the output layer, which is the embedding, is left out.
    """
    factors = {}
    for name, module in model.named_modules():
        weight = f"{name}.weight"
        if isinstance(module, nn.Linear) and weight in dict(model.named_parameters()):
            second = optimizer.state[module.weight]["exp_avg_sq"].double()
            factors[f"{weight}.row"] = second.mean(dim=1).float()
            factors[f"{weight}.col"] = second.mean(dim=0).float()
    return factors


def save_moments(trained: Trained, recipe: TrainingSettings, path: Path) -> None:
    """Write the moments with the header that says what they are (`proponent-moments/1`)."""
    metadata = {
        "format": "proponent-moments/1",
        "kind": "adam-factored",
        "optimizer": "AdamW",
        "beta2": str(recipe.beta2),
        "steps": str(trained.steps),
    }
    path.write_bytes(_with_sorted_metadata(save(factored_moments(trained.model, trained.optimizer), metadata=metadata)))


def _with_sorted_metadata(file: bytes) -> bytes:
    """Sort the metadata of a safetensors file, which come in another order in every process.

    The file is a length of eight bytes, a JSON header padded with spaces, and the tensors' bytes; sorting changes
    no length.
    """
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
    return file[:8] + text + file[8 + length :]


# Command line


def _report(step: int, steps: int, loss: float) -> None:
    if step % 50 == 0 or step == steps:
        end = "\n" if step == steps else ""
        print(f"\rstep {step:,} of {steps:,}, loss {loss:.3f}", end=end, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(prog="python -m proponent.demo.train", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=CHECKPOINT, help="folder of the checkpoint (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="first weights and order of the documents")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: %(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    train(options.out, seed=options.seed, progress=_report if sys.stderr.isatty() else None)


if __name__ == "__main__":
    main()
