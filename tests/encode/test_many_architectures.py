"""Architectures beyond those that every run tests: exact against gradients in float64, in whatever company.

Left out are those whose float32 arithmetic is itself further than that from float64: gated delta rules and the like.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from proponent.encode.causality import require_causal
from proponent.encode.encoder import Projector, estimate_moments
from proponent.encode.gradients import Example
from proponent.encode.layers import freeze
from proponent.schema.settings import EncoderSettings

COMMON = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
    "use_cache": False,
}
HEADS = COMMON | {"head_dim": 8}
GPT = {"vocab_size": 320, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
MOE = HEADS | {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
DEEPSEEK = COMMON | LATENT | {"num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1}
DEEPSEEK |= {"topk_group": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1, "n_shared_experts": 1}
SIZES: dict[str, dict[str, Any]] = {
    "ApertusConfig": HEADS,
    "ArceeConfig": HEADS,
    "BioGptConfig": COMMON,
    "BitNetConfig": HEADS,
    "CodeGenConfig": GPT | {"rotary_dim": 4},
    "CohereConfig": HEADS,
    "Cohere2Config": HEADS | {"sliding_window": 6},
    "CTRLConfig": GPT | {"dff": 48},
    "DeepseekV2Config": DEEPSEEK,
    "DeepseekV3Config": DEEPSEEK,
    "DiffLlamaConfig": HEADS,
    "Ernie4_5Config": HEADS,
    "Exaone4Config": HEADS | {"sliding_window": 6},
    "GemmaConfig": HEADS,
    "GlmConfig": HEADS | {"pad_token_id": 0},
    "Glm4Config": HEADS | {"pad_token_id": 0},
    "GPTBigCodeConfig": GPT,
    "GPTJConfig": GPT | {"rotary_dim": 4},
    "GraniteConfig": HEADS,
    "GraniteMoeConfig": MOE,
    "HeliumConfig": HEADS,
    "HunYuanDenseV1Config": HEADS,
    "JambaConfig": HEADS
    | {"num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2}
    | {"use_mamba_kernels": False, "mamba_d_state": 8, "mamba_dt_rank": 4},
    "Llama4TextConfig": MOE | {"intermediate_size_mlp": 48, "attention_chunk_size": 8},
    "MptConfig": {"vocab_size": 320, "d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 64},
    "NanoChatConfig": HEADS,
    "NemotronConfig": HEADS,
    "OlmoConfig": HEADS,
    "Olmo3Config": HEADS | {"sliding_window": 6},
    "OlmoeConfig": MOE,
    "PersimmonConfig": HEADS,
    "PhiConfig": HEADS,
    "SmolLM3Config": HEADS | {"pad_token_id": 0},
    "StableLmConfig": HEADS,
    "Starcoder2Config": HEADS | {"sliding_window": 6},
}


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the largest error of a row, relative to the row's norm."""
    found, exact = found.double().flatten(1), exact.double().flatten(1)
    return float(((found - exact).norm(dim=1) / exact.norm(dim=1)).max())


@pytest.mark.full
@pytest.mark.parametrize("kind", SIZES)
def test_encodings_and_shares_are_exact_and_do_not_depend_on_the_batch(
    kind: str,
    make_projector: Callable[..., Projector],
    exact_phi: Callable[..., torch.Tensor],
    settings: EncoderSettings,
    examples: list[Example],
) -> None:
    torch.manual_seed(1)
    config = getattr(transformers, kind)(**SIZES[kind])
    model: Any = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    freeze(model)
    require_causal(model)
    some = [*examples[:3], examples[-1]]
    bare = make_projector(model)
    projector = make_projector(model, estimate_moments(bare.checkpoint, some))
    expected = exact_phi(projector.checkpoint, settings, projector.moments, some)
    alone = torch.cat([projector.phi([example])[0] for example in some])
    longest = Example(tuple(range(2, 66)))
    assert relative_error(alone, expected) <= 1e-5
    assert relative_error(projector.phi([*some, longest])[0][:-1], alone) <= 1e-5
    weights = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    for example, phi in zip(some, alone, strict=True):
        shares = projector.token_shares(example, weights).sum()
        assert shares == pytest.approx(float((phi * weights).sum()), abs=1e-5 * float(phi.norm() * weights.norm()))
