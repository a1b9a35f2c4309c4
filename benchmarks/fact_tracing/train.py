"""Train the models from nothing: tokenizer, a Llama after a quarter, half and all of its training, and a smaller one.

Every checkpoint is saved with AdamW's own state, of which the lake takes the second moments. The same seed on the same
machine with the same threads gives the same weights.
"""

import platform
import time
from collections.abc import Mapping, Sequence

import torch
from sizes import Shape
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from work import MAIN, SMALL, STAGES, Work, read_rows

from proponent.demo.completions import completes
from proponent.demo.train import make_tokenizer
from proponent.encode.checkpoint import device_here
from proponent.encode.training import Trained, token_rows, train
from proponent.query.evaluate.facts import read_facts
from proponent.schema.settings import TrainingSettings

SEED = 0
_POSITIONS = 256


def run(work: Work) -> None:
    """Train both models, and tell what each checkpoint completes rightly."""
    torch.set_num_threads(work.threads)
    texts = [row["text"] for row in read_rows(work.corpus)]
    tokenizer = make_tokenizer(texts, vocabulary=work.size.vocabulary, positions=_POSITIONS)
    rows = token_rows(tokenizer, texts)
    found = {"tokens": sum(map(len, rows)), "longest": max(map(len, rows)), "device": _device(), "models": {}}
    main, small = work.size.main, work.size.small
    steps = main.epochs * -(-len(rows) // main.batch_size)
    stages = dict(zip((steps // 4, steps // 2, steps), STAGES, strict=True))
    found["models"][MAIN] = _train(work, main, tokenizer, rows, stages)
    steps = small.epochs * -(-len(rows) // small.batch_size)
    found["models"][SMALL] = _train(work, small, tokenizer, rows, {steps: SMALL})
    facts = read_facts(read_rows(work.facts))
    for name in (*STAGES, SMALL):
        model = LlamaForCausalLM.from_pretrained(work.model(name)).to(device_here())  # type: ignore[arg-type]
        found["models"].setdefault(name, {})["completes"] = completes(model, tokenizer, facts)  # type: ignore[arg-type]
    work.write("train", found)


def _device() -> str:
    """Return the name of what the study runs on."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"the CPU, {platform.machine()}"


def _train(
    work: Work, shape: Shape, tokenizer: PreTrainedTokenizerFast, rows: Sequence[list[int]], stages: Mapping[int, str]
) -> dict[str, float]:
    """Train one model, and save it after the steps that are named; return its size and the loss of its last epoch."""
    losses: list[float] = []
    began = time.monotonic()

    def tell(step: int, steps: int, loss: float) -> None:
        losses.append(loss)
        if step % 100 == 0:
            print(f"step {step} of {steps}, loss {sum(losses[-100:]) / 100:.3f}", flush=True)

    def save(trained: Trained, _steps: int) -> None:
        if trained.steps in stages:
            folder = work.model(stages[trained.steps])
            trained.model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            torch.save(trained.optimizer.state_dict(), folder / "optimizer.pt")

    settings = TrainingSettings(
        epochs=shape.epochs, batch_size=shape.batch_size, learning_rate=shape.learning_rate, beta2=shape.beta2
    )
    trained = train(
        _config(shape, tokenizer), rows, settings, seed=SEED, pad=int(tokenizer.pad_token_id),
        device=device_here(), progress=tell, visit=save,
    )  # fmt: skip
    last = losses[-len(losses) // shape.epochs :]
    parameters = sum(one.numel() for one in trained.model.parameters())
    return {"parameters": parameters, "loss": sum(last) / len(last), "seconds": time.monotonic() - began}


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
