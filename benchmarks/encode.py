"""The encoder against plain forward and backward passes: CPU seconds, peak memory, and tokens a second.

Everything is measured interleaved in one process on one thread, and the best of several rounds counts. With second
moments and whitening included, an encoding should cost less than a training step's forward and backward pass. Where
bergson is installed it runs on the same documents. Prints one JSON object as its last line.

    python benchmarks/encode.py            # the small model, memory, and a model of SmolLM2-135M's shape
    python benchmarks/encode.py --rounds 9
"""

import argparse
import contextlib
import copy
import importlib.util
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaConfig

from proponent.encode.batches import BATCH_TOKENS, TokenBudget, in_batches
from proponent.encode.checkpoint import Checkpoint, CheckpointFacts
from proponent.encode.curvature import Whitening
from proponent.encode.encoder import Encoder, Projector, estimate_moments
from proponent.encode.gradients import Example
from proponent.encode.layers import freeze
from proponent.schema.settings import EncoderSettings

_ONE_BATCH = 1 << 20
SMALL = {
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
}
SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
BILLION = SMOLLM2 | {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
"""About a billion parameters."""


def make_model(sizes: dict[str, Any]) -> Any:
    """Return a random Llama."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(LlamaConfig(**sizes))  # type: ignore[no-untyped-call]


def documents(n: int, *, shortest: int, longest: int, vocabulary: int) -> list[Example]:
    """Return documents of random tokens, of lengths that are spread evenly."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.linspace(shortest, longest, n).round().int().tolist()
    return [Example(tuple(torch.randint(vocabulary, (length,), generator=generator).tolist())) for length in lengths]


def plain_passes(model: Any, examples: Sequence[Example], *, backward: bool, tokens: int = BATCH_TOKENS) -> None:
    """Run the examples in the same batches as the encoder, forwards and, if asked, backwards to every weight."""

    def step(some: list[Example]) -> bool:
        ids = torch.zeros(len(some), max(len(example.token_ids) for example in some), dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, example in enumerate(some):
            labels[row, : len(example.token_ids)] = ids[row, : len(example.token_ids)] = torch.tensor(example.token_ids)
        ids, labels = ids.to(model.device), labels.to(model.device)
        model.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(backward):
            logits = model(input_ids=ids, attention_mask=(labels >= 0).long(), use_cache=False).logits
            following = functional.pad(labels[:, 1:], (0, 1), value=-100)
            loss = functional.cross_entropy(logits.flatten(0, 1).float(), following.flatten(), reduction="sum")
        if backward:
            loss.backward()
        return True

    for _ in in_batches(examples, step, budget=TokenBudget(tokens)):
        pass


def make_encoder(model: Any, settings: EncoderSettings, sample: Sequence[Example]) -> Encoder:
    """Return an encoder with second moments and a whitening of the right size; what it whitens by costs no time."""
    checkpoint = Checkpoint(CheckpointFacts(Path(), "", 0, model.config.max_position_embeddings, "", ""), model, None)
    projector = Projector(checkpoint, settings, estimate_moments(checkpoint, sample))
    size = settings.side**2
    root = torch.rand(2 * settings.blocks, size, size, device=projector.device)
    return Encoder(projector, Whitening(torch.empty(0), torch.empty(2 * settings.blocks, 0)), root)


def best_cpu_seconds(tasks: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Return the least CPU seconds of every task over several rounds, in which the tasks take turns."""
    best = dict.fromkeys(tasks, float("inf"))
    for _ in range(rounds):
        for name, task in tasks.items():
            started = time.process_time()
            task()
            best[name] = min(best[name], time.process_time() - started)
    return best


def bergson_tasks(model: Any, examples: Sequence[Example], folder: Path) -> dict[str, Callable[[], object]]:
    """Return bergson's collection of the same documents' gradients, without and with Adam's second moments."""
    if importlib.util.find_spec("bergson") is None:
        return {}
    from bergson.collection import collect_gradients
    from bergson.config import IndexConfig
    from bergson.gradients import AdamNormalizer, GradientProcessor
    from datasets import Dataset

    logging.disable(logging.INFO)
    data = Dataset.from_dict(
        {"input_ids": [list(e.token_ids) for e in examples], "length": [len(e.token_ids) for e in examples]}
    )
    moments = {
        name: AdamNormalizer(torch.rand_like(module.weight) + 0.1)
        for name, module in model.base_model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }

    batches = [places for places, _ in in_batches(examples, len, budget=TokenBudget())]

    def task(side: int, *, adam: bool) -> Callable[[], object]:
        def collect() -> None:
            with tempfile.TemporaryDirectory(dir=folder) as path, contextlib.redirect_stderr(io.StringIO()):
                config = IndexConfig(run_path=str(Path(path) / "run"), projection_dim=side, token_batch_size=2560)
                processor = GradientProcessor(dict(moments) if adam else {}, projection_dim=side)
                collect_gradients(model, data, processor, config, batches=batches)

        return collect

    return {
        "bergson_p16": task(16, adam=False),
        "bergson_p64": task(64, adam=False),
        "bergson_p16_adam": task(16, adam=True),
    }


def small(rounds: int) -> dict[str, float]:
    """Measure the small model; return ratios to the plain forward and backward pass."""
    trained = make_model(SMALL)
    frozen = copy.deepcopy(trained)
    freeze(frozen)
    examples = documents(20, shortest=75, longest=111, vocabulary=SMALL["vocab_size"])
    encoders = {side: make_encoder(frozen, EncoderSettings(blocks=2, side=side), examples) for side in (16, 64)}
    with tempfile.TemporaryDirectory() as folder:
        tasks: dict[str, Callable[[], object]] = {
            "plain": lambda: plain_passes(trained, examples, backward=True),
            "forward": lambda: plain_passes(frozen, examples, backward=False),
            "s16": lambda: encoders[16].encode(examples),
            "s64": lambda: encoders[64].encode(examples),
        } | bergson_tasks(trained, examples, Path(folder))
        seconds = best_cpu_seconds(tasks, rounds=rounds)
    tokens = sum(len(example.token_ids) for example in examples)
    size = sum(parameter.numel() for parameter in frozen.parameters())
    print(f"{size:,} parameters, {len(examples)} documents, {tokens:,} tokens, one thread, best of {rounds}\n")
    for name, value in seconds.items():
        print(f"  {name:18} {value:7.3f} CPU s   {value / seconds['plain']:5.2f} of plain forward + backward")
    return {name: round(value / seconds["plain"], 3) for name, value in seconds.items() if name != "plain"}


def memory_of(task: str) -> float:
    """Return the MiB by which the peak memory of a fresh process grows in a task."""
    command = [sys.executable, __file__, "--memory", task]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def grow(task: str) -> float:
    """Run a task of the small model in this process; return the MiB by which its peak memory grew."""
    model = make_model(SMALL)
    examples = documents(20, shortest=75, longest=111, vocabulary=SMALL["vocab_size"])
    if task == "plain":
        before = _reset_peak()
        plain_passes(model, examples, backward=True, tokens=_ONE_BATCH)
    else:
        freeze(model)
        projector = make_encoder(model, EncoderSettings(blocks=2, side=int(task)), examples[:1]).projector
        before = _reset_peak()
        projector.phi(examples)  # whitening matrices aside
    return _memory_mib("VmHWM") - before


def _reset_peak() -> float:
    """Forget the peak memory so far; return what is in use. Getrusage would mix it with the parent's."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory_mib("VmRSS")


def _memory_mib(key: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def larger(rounds: int) -> dict[str, float]:
    """Measure a model of SmolLM2-135M's shape."""
    trained = make_model(SMOLLM2)
    frozen = copy.deepcopy(trained)
    freeze(frozen)
    examples = documents(4, shortest=100, longest=140, vocabulary=SMOLLM2["vocab_size"])
    encoder = make_encoder(frozen, EncoderSettings(blocks=2, side=32), examples[:1])
    seconds = best_cpu_seconds(
        {
            "plain": lambda: plain_passes(trained, examples, backward=True),
            "s32": lambda: encoder.encode(examples),
        },
        rounds=rounds,
    )
    tokens = sum(len(example.token_ids) for example in examples)
    ratio = seconds["s32"] / seconds["plain"]
    print(f"\nSmolLM2-135M's shape, s = 32: {ratio:.2f} of plain, {tokens / seconds['s32']:.0f} tokens per CPU second")
    return {"smollm2_s32": round(ratio, 3), "smollm2_tokens_per_cpu_s": round(tokens / seconds["s32"])}


def on_gpu() -> dict[str, float]:
    """Measure models of 135M and about 1B parameters in bfloat16 on a GPU, with d = 65,536."""
    found: dict[str, float] = {}
    for name, sizes in (("135m", SMOLLM2), ("1b", BILLION)):
        model = make_model(sizes).to("cuda", torch.bfloat16)
        examples = documents(256, shortest=400, longest=600, vocabulary=SMOLLM2["vocab_size"])
        tokens = sum(len(example.token_ids) for example in examples)
        freeze(model)
        encoder = make_encoder(model, EncoderSettings(blocks=8, side=64, precision="bfloat16"), examples[:4])
        encoder.encode(examples)  # finds the budget
        torch.cuda.reset_peak_memory_stats()
        seconds = _gpu_seconds(lambda encoder=encoder, examples=examples: encoder.encode(examples))
        peak = torch.cuda.max_memory_allocated() / 2**30
        limit = _gpu_seconds(
            lambda model=model, examples=examples, n=encoder.projector.budget.tokens: _activations_only(
                model, examples, n
            )
        )
        print(f"{name}: {tokens / seconds:,.0f} tokens/s, {limit / seconds:.2f} of the limit, {peak:.1f} GiB")
        found |= {
            f"gpu_{name}_tokens_per_s": round(tokens / seconds),
            f"gpu_{name}_of_limit": round(limit / seconds, 3),
        }
        found[f"gpu_{name}_gib"] = round(peak, 1)
        del model, encoder
        torch.cuda.empty_cache()
    return found


def _activations_only(model: Any, examples: Sequence[Example], tokens: int) -> None:
    """Forward, and backward to the activations alone: what no encoder can be faster than."""
    hook = model.get_input_embeddings().register_forward_hook(lambda _m, _i, output: output.requires_grad_())
    try:
        plain_passes(model, examples, backward=True, tokens=tokens)
    finally:
        hook.remove()


def _gpu_seconds(task: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        torch.cuda.synchronize()
        started = time.perf_counter()
        task()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", metavar="TASK", help="print the memory of one task of the small model, and end")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.memory:
        print(grow(chosen.memory))
        return
    found = small(chosen.rounds)
    memory = {task: memory_of(task) for task in ("plain", "16", "64")}
    print()
    for task, mib in memory.items():
        name = "plain forward + backward" if task == "plain" else f"phi at s = {task}"
        print(f"  {name:26} {mib:7.1f} MiB above the loaded model   {mib / memory['plain']:5.2f} of plain")
    found |= {f"memory_s{side}": round(memory[side] / memory["plain"], 3) for side in ("16", "64")}
    found |= larger(min(chosen.rounds, 3))
    if torch.cuda.is_available():
        found |= on_gpu()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
