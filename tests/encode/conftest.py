"""A loaded tiny model, its examples, a fitted encoder, and encodings worked out the long way in float64."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from proponent.encode.checkpoint import Checkpoint, CheckpointFacts, load_checkpoint, read_facts
from proponent.encode.encoder import Encoder, Projector, estimate_moments, fit
from proponent.encode.gradients import Example
from proponent.encode.layers import freeze
from proponent.encode.moments import RELATIVE_FLOOR, ElementwiseMoments, Moments
from proponent.encode.projection import gaussian
from proponent.encode.tokens import passage_examples
from proponent.schema.settings import EncoderSettings


@pytest.fixture(scope="session")
def checkpoint(checkpoint_dir: Path) -> Checkpoint:
    return load_checkpoint(read_facts(checkpoint_dir))


@pytest.fixture(scope="session")
def settings() -> EncoderSettings:
    return EncoderSettings(blocks=2, side=8, seed=3)


@pytest.fixture(scope="session")
def examples(checkpoint: Checkpoint, sentences: list[str]) -> list[Example]:
    """Passages of different lengths, and a query whose loss is on its last four tokens."""
    passages = passage_examples(checkpoint.tokenizer, sentences)
    return [*passages[:20], Example(passages[20].token_ids, n_target=4)]


@pytest.fixture(scope="session")
def encoder(checkpoint: Checkpoint, settings: EncoderSettings, sentences: list[str]) -> Encoder:
    """An encoder with estimated second moments, fitted on all sentences."""
    sample = passage_examples(checkpoint.tokenizer, [*sentences, *(text.upper() for text in sentences)])
    moments = estimate_moments(checkpoint, sample)
    return fit(Projector(checkpoint, settings, moments), sample)[0]


SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
SMALL_GPT2 = {"vocab_size": 320, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "bos_token_id": 0}
SMALL_OPT = {"vocab_size": 320, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
SMALL_OPT |= {"max_position_embeddings": 64, "word_embed_proj_dim": 24, "dropout": 0.0, "bos_token_id": 0}
SMALL_FALCON = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", SIZES | {"num_key_value_heads": 4}),
    "llama, grouped queries": ("LlamaConfig", SIZES),
    "llama, tied embeddings": ("LlamaConfig", SIZES | {"tie_word_embeddings": True}),
    "llama, biases": ("LlamaConfig", SIZES | {"attention_bias": True, "mlp_bias": True}),
    "llama, wide heads": ("LlamaConfig", SIZES | {"head_dim": 16}),
    "mistral, sliding window": ("MistralConfig", SIZES | {"sliding_window": 6}),
    "qwen2": ("Qwen2Config", SIZES),
    "qwen3": ("Qwen3Config", SIZES),
    "olmo2": ("Olmo2Config", SIZES),
    "gemma2": ("Gemma2Config", SIZES | {"sliding_window": 6, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3TextConfig", SIZES | {"sliding_window": 6, "query_pre_attn_scalar": 8}),
    "phi3": ("Phi3Config", SIZES | {"pad_token_id": 0}),
    "gpt2": ("GPT2Config", SMALL_GPT2 | {"eos_token_id": 1}),
    "gpt-neox": ("GPTNeoXConfig", SIZES),
    "opt": ("OPTConfig", SMALL_OPT | {"eos_token_id": 1, "pad_token_id": 1}),
    "bloom": ("BloomConfig", {"vocab_size": 320, "hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "mixtral": ("MixtralConfig", SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2-moe": ("Qwen2MoeConfig", SIZES | EXPERTS | {"shared_expert_intermediate_size": 24}),
    "qwen3-moe": ("Qwen3MoeConfig", SIZES | EXPERTS),
    "gpt-oss": ("GptOssConfig", SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "phimoe": ("PhimoeConfig", SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "falcon": ("FalconConfig", SMALL_FALCON),
}
"""Small models of every architecture that is promised, by the configuration's class; GPT-OSS has transposed experts
with biases besides."""
INITIAL = ("initializer_range", "init_std")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    """The name of each architecture."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    """Make a small random model of an architecture, frozen; `spread` is that of the weights."""

    def make(architecture: str, *, attention: str = "eager", spread: float = 0.2, **config: Any) -> Any:
        import transformers

        kind, sizes = ARCHITECTURES[architecture]
        initial = dict.fromkeys(INITIAL, spread)
        chosen = getattr(transformers, kind)(**sizes | initial | config)
        torch.manual_seed(1)
        model = transformers.AutoModelForCausalLM.from_config(chosen, attn_implementation=attention)
        with torch.no_grad():  # biases start at zero, where an error in them would not show
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(std=spread)
        freeze(model)
        return model

    return make


@pytest.fixture(scope="session")
def make_projector(settings: EncoderSettings) -> Callable[..., Projector]:
    """Make a projector of a model without a checkpoint's files."""

    def make(model: Any, moments: Moments | None = None) -> Projector:
        facts = CheckpointFacts(Path(), type(model).__name__, 3, 64, "", "")
        return Projector(Checkpoint(facts, model, None), settings, moments)

    return make


@pytest.fixture(scope="session")
def exact_phi(full_gradients: Callable[..., dict[str, torch.Tensor]]) -> Callable[..., torch.Tensor]:
    """phi (b, groups, s * s) in float64 by the definition: form, correct, project, sum by group."""

    def phi(
        checkpoint: Checkpoint, settings: EncoderSettings, moments: Moments | None, examples: Sequence[Example]
    ) -> torch.Tensor:
        n_layers = checkpoint.model.config.num_hidden_layers
        side = settings.side
        total = torch.zeros(len(examples), 2 * settings.blocks, side, side, dtype=torch.float64)
        for name, gradient in full_gradients(checkpoint.model, examples).items():
            corrected = gradient
            if isinstance(moments, ElementwiseMoments):
                corrected = gradient / moments.values[name].double().sqrt()
            elif moments is not None:
                rows, columns = (side[name].double() for side in (moments.rows, moments.columns))
                rows, columns = (side.clamp_min(side.mean() * RELATIVE_FLOOR) for side in (rows, columns))
                # An expert that no example reached has no gradient to correct.
                corrected = gradient / (torch.outer(rows, columns) / rows.mean()).sqrt() if rows.any() else 0 * gradient
            left = gaussian(f"{name}/left", side, gradient.shape[1], seed=settings.seed).double()
            right = gaussian(f"{name}/right", side, gradient.shape[2], seed=settings.seed).double()
            layer = int(re.search(r"\.(\d+)\.", name)[1])  # type: ignore[index]
            attention = re.search(r"attn|attention", name)
            total[:, 2 * (layer * settings.blocks // n_layers) + (not attention)] += left @ corrected @ right.T
        return total.flatten(2)

    return phi
