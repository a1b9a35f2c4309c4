"""A GGUF file, weights and tokenizer in one, works as a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from proponent.encode.checkpoint import load_checkpoint, load_tokenizer, read_facts, skeleton
from proponent.encode.encoder import Projector
from proponent.encode.tokens import passage_examples
from proponent.schema.errors import ModelError
from proponent.schema.settings import EncoderSettings


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory, make_tokenizer: Callable[..., Any]) -> Path:
    """A tiny random Llama, with eight-bit weights where their rows are long enough."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tokenizer = make_tokenizer()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(3)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokenizer) + 2)
    writer.add_tokenizer_model("gpt2")
    vocabulary = [*sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__), "<unk>", "<|endoftext|>"]
    merges = [" ".join(pair) for pair in _merges(tokenizer)]
    writer.add_token_list(vocabulary)
    writer.add_token_merges(merges)
    writer.add_token_types([3 if token.startswith("<") and len(token) > 2 else 1 for token in vocabulary])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(len(tokenizer))
    generator = torch.Generator().manual_seed(0)
    shapes = {"token_embd": (len(vocabulary), 32), "output_norm": (32,), "output": (len(vocabulary), 32)}
    for n in range(3):
        shapes |= {f"blk.{n}.attn_{part}": (32 if part in "q output" else 16, 32) for part in ("q", "k", "v", "output")}
        shapes |= {f"blk.{n}.ffn_gate": (64, 32), f"blk.{n}.ffn_up": (64, 32), f"blk.{n}.ffn_down": (32, 64)}
        shapes |= {f"blk.{n}.attn_norm": (32,), f"blk.{n}.ffn_norm": (32,)}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator).numpy() * 0.2
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", values + 1)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _merges(tokenizer: Any) -> list[list[str]]:
    import json

    merges: list[list[str]] = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return merges


def test_facts_are_read_from_the_file(gguf_file: Path) -> None:
    facts = read_facts(gguf_file)
    assert (facts.n_layers, facts.context_length) == (3, 64)
    assert facts.weights_hash == facts.tokenizer_hash


def test_phi_is_exact_for_the_weights_that_the_file_holds(
    gguf_file: Path, settings: EncoderSettings, sentences: list[str], exact_phi: Callable[..., torch.Tensor]
) -> None:
    checkpoint = load_checkpoint(read_facts(gguf_file))
    some = passage_examples(checkpoint.tokenizer, sentences[:3])
    phi, _ = Projector(checkpoint, settings, None).phi(some)
    expected = exact_phi(checkpoint, settings, None, some)
    assert float((phi.double() - expected).norm() / expected.norm()) <= 1e-5


def test_the_skeleton_has_the_models_parameters(gguf_file: Path) -> None:
    facts = read_facts(gguf_file)
    shapes = {name: p.shape for name, p in load_checkpoint(facts).model.named_parameters()}
    assert {name: p.shape for name, p in skeleton(facts).named_parameters()} == shapes


def test_the_tokenizer_gives_texts_back(gguf_file: Path, sentences: list[str]) -> None:
    tokenizer = load_tokenizer(gguf_file)
    ids = tokenizer(sentences[0])["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == sentences[0]


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: b"GGUF", lambda data: data[:3000], lambda data: b"x" * 99]
)
def test_a_damaged_file_is_refused_in_one_line(
    gguf_file: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damage(gguf_file.read_bytes()))
    with pytest.raises(ModelError) as caught:
        load_checkpoint(read_facts(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.gguf does not exist"):
        read_facts(tmp_path / "none.gguf")
