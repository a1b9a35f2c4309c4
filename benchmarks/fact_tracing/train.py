"""Train the models from nothing: tokenizer, a Llama after a quarter, half and all of its training, and a smaller one.

Every checkpoint is saved with AdamW's own state, of which the lake takes the second moments. The same seed on the same
machine with the same threads gives the same weights.
"""

import time
from collections.abc import Iterator, Sequence

import torch
from sizes import Shape
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from work import MAIN, SMALL, STAGES, Work, read_rows

from proponent.demo.completions import completes
from proponent.query.evaluate.facts import read_facts

SEED = 0
_BOS, _EOS, _PAD = "<s>", "</s>", "<pad>"
_POSITIONS = 256


def run(work: Work) -> None:
    """Train both models, and tell what each checkpoint completes rightly."""
    torch.set_num_threads(work.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    texts = [row["text"] for row in read_rows(work.corpus)]
    tokenizer = make_tokenizer(texts, work.size.vocabulary)
    rows = [[*ids, int(tokenizer.eos_token_id)] for ids in tokenizer(texts)["input_ids"]]
    found = {"tokens": sum(map(len, rows)), "longest": max(map(len, rows)), "device": device, "models": {}}
    for name, shape in ((MAIN, work.size.main), (SMALL, work.size.small)):
        began = time.monotonic()
        parameters, loss = _train(work, name=name, shape=shape, tokenizer=tokenizer, rows=rows, device=device)
        found["models"][name] = {"parameters": parameters, "loss": loss, "seconds": time.monotonic() - began}
    facts = read_facts(read_rows(work.facts))
    for name in (*STAGES, SMALL):
        model = LlamaForCausalLM.from_pretrained(work.model(name))
        found["models"].setdefault(name, {})["completes"] = completes(model, tokenizer, facts)  # type: ignore[arg-type]
    work.write("train", found)


def make_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer that puts BOS in front of everything, and nothing behind."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_BOS, _EOS, _PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A", pair=f"{_BOS} $A $B", special_tokens=[(_BOS, backend.token_to_id(_BOS))]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, bos_token=_BOS, eos_token=_EOS, pad_token=_PAD, model_max_length=_POSITIONS
    )


def _train(
    work: Work, *, name: str, shape: Shape, tokenizer: PreTrainedTokenizerFast, rows: Sequence[list[int]], device: str
) -> tuple[int, float]:
    """Train one model and save it, the one that is studied on the way, too; return its size and its last losses."""
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(_config(shape, tokenizer)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=shape.learning_rate, betas=(0.9, 0.999), fused=True)
    steps = shape.epochs * -(-len(rows) // shape.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, shape.learning_rate, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    saved = {steps // 4: STAGES[0], steps // 2: STAGES[1], steps: name} if name == MAIN else {steps: name}
    order = torch.Generator().manual_seed(SEED)
    losses: list[float] = []
    for step, batch in enumerate(_batches(rows, shape, order), start=1):
        inputs, labels = (side.to(device) for side in _padded(batch, int(tokenizer.pad_token_id)))
        logits = model(input_ids=inputs, use_cache=False).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"{name}: step {step} of {steps}, loss {sum(losses[-100:]) / 100:.3f}", flush=True)
        if step in saved:
            folder = work.model(saved[step])
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    last = losses[-len(losses) // shape.epochs :]
    return sum(one.numel() for one in model.parameters()), sum(last) / len(last)


def _config(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=3 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _batches(rows: Sequence[list[int]], shape: Shape, order: torch.Generator) -> Iterator[list[list[int]]]:
    """Yield all epochs' batches, each of rows of similar length: padding would cost a third of the time."""
    size = shape.batch_size
    for _ in range(shape.epochs):
        shuffled = torch.randperm(len(rows), generator=order).tolist()
        batches = []
        for start in range(0, len(rows), 8 * size):
            pool = sorted(shuffled[start : start + 8 * size], key=lambda place: len(rows[place]))
            batches += [pool[at : at + size] for at in range(0, len(pool), size)]
        for which in torch.randperm(len(batches), generator=order).tolist():
            yield [rows[place] for place in batches[which]]


def _padded(batch: Sequence[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and labels (batch, tokens), padded on the right, where a causal model does not see it."""
    length = max(map(len, batch))
    ids = torch.tensor([row + [pad] * (length - len(row)) for row in batch])
    labels = torch.tensor([row + [-100] * (length - len(row)) for row in batch])
    return ids[:, :-1], labels[:, 1:]
