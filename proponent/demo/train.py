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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from safetensors.torch import save
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .factbook import TOKEN_BUDGET, documents

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The checkpoint that is kept with the package."""

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
_VOCABULARY = 4096
_POSITIONS = 64  # BOS, TOKEN_BUDGET tokens, EOS
_IGNORED = -100  # label of positions that carry no loss

Progress = Callable[[int, int, float], object]
"""Called after every step with the steps done, the steps in all, and the step's loss in nats per token."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast the model learns."""

    epochs: int = 26
    """Times that every document is seen."""
    batch_size: int = 32
    """Documents in a step."""
    learning_rate: float = 4e-3
    """The peak of the one-cycle schedule."""
    beta2: float = 0.999
    """AdamW's decay of the second moment: it averages over the last 1,000 steps or so."""


class Trained(NamedTuple):
    """A trained model and the moments that its optimizer ended with."""

    model: LlamaForCausalLM
    moments: dict[str, Tensor]
    steps: int


def train(out: Path, *, seed: int = 0, progress: Progress | None = None, recipe: Recipe | None = None) -> None:
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
    recipe = recipe or Recipe()
    out.mkdir(parents=True, exist_ok=True)
    texts = [document["text"] for document in documents()]
    tokenizer = make_tokenizer(texts)
    trained = fit(tokenizer, texts, recipe, seed=seed, progress=progress)

    tokenizer.save_pretrained(out)
    trained.model.bfloat16().save_pretrained(out)
    save_moments(trained, recipe, out / "second_moments.safetensors")


# Tokenizer


def make_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer that puts BOS in front of everything, and nothing behind."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
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
        model_max_length=_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


# Model


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Make an untrained model with weights from torch's global generator."""
    config = LlamaConfig(
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
    return LlamaForCausalLM(config)


def fit(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    recipe: Recipe,
    *,
    seed: int,
    progress: Progress | None = None,
) -> Trained:
    """Train a model on the texts, one row each, and factor what its optimizer knows of the gradients' sizes."""
    rows = _rows(tokenizer, texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model(tokenizer)
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, recipe.beta2), fused=True)
    steps = recipe.epochs * -(-len(rows) // recipe.batch_size)
    # Momentum stays as it is: cycling it as well changes nothing that could be measured here.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps, cycle_momentum=False
    )

    model.train()
    step = 0
    for _ in range(recipe.epochs):
        for batch in _batches(rows, recipe.batch_size, order):
            inputs, labels = _padded(batch, int(tokenizer.pad_token_id))
            loss = _loss(model, inputs, labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if progress:
                progress(step, steps, loss.item())
    model.train(False)
    return Trained(model, factored_moments(model, optimizer), step)


def _rows(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Tokenise to BOS, text, EOS; refuse a text that does not fit, for a cut row would teach a broken ending."""
    rows = [[*ids, int(tokenizer.eos_token_id)] for ids in tokenizer(list(texts))["input_ids"]]
    for text, row in zip(texts, rows, strict=True):
        if len(row) > TOKEN_BUDGET + 2:
            raise ValueError(f"a document has {len(row) - 2} tokens, and the model takes {TOKEN_BUDGET}: {text!r}")
    return rows


def _batches(rows: Sequence[list[int]], size: int, order: torch.Generator) -> Iterator[list[list[int]]]:
    """Shuffle the rows, then batch rows of similar length: padding would cost a third of the time."""
    shuffled = torch.randperm(len(rows), generator=order).tolist()
    pools = [shuffled[at : at + 8 * size] for at in range(0, len(rows), 8 * size)]
    batches = []
    for pool in pools:
        pool.sort(key=lambda index: len(rows[index]))
        batches += [pool[at : at + size] for at in range(0, len(pool), size)]
    for index in torch.randperm(len(batches), generator=order).tolist():
        yield [rows[row] for row in batches[index]]


def _padded(batch: Sequence[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Pad on the right to (batch, tokens) inputs, and labels one position ahead that ignore the padding.

    No attention mask is needed: what follows a token cannot be seen from it.
    """
    length = max(map(len, batch))
    ids = torch.tensor([row + [pad] * (length - len(row)) for row in batch])
    seen = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in batch], dtype=torch.bool)
    labels = ids.masked_fill(~seen, _IGNORED)
    return ids[:, :-1], labels[:, 1:]


def _loss(model: LlamaForCausalLM, inputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of a token, from (batch, tokens) inputs and labels."""
    logits = model(input_ids=inputs, use_cache=False).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=_IGNORED)


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


def save_moments(trained: Trained, recipe: Recipe, path: Path) -> None:
    """Write the moments with the header that says what they are (`proponent-moments/1`)."""
    metadata = {
        "format": "proponent-moments/1",
        "kind": "adam-factored",
        "optimizer": "AdamW",
        "beta2": str(recipe.beta2),
        "steps": str(trained.steps),
    }
    path.write_bytes(_with_sorted_metadata(save(trained.moments, metadata=metadata)))


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
