"""Encoders of sentences: the mean of the last layer's states, brought to unit length; a baseline that asks no gradient.

Notable: weights come from safetensors only, no code of a checkpoint is ever run, and nothing is looked up on a network.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from proponent.schema.errors import ModelError

from .checkpoint import device_here, hash_files

_BATCH: Final = 64
_FILES: Final = ("config.json", "model.safetensors", "tokenizer.json")


@dataclass(frozen=True)
class SentenceEncoder:
    """A loaded encoder of sentences."""

    model: Any
    tokenizer: Any
    max_tokens: int

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors (n, d) float32; a text beyond the model's context is cut."""
        parts = [self._batch(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, self.model.config.hidden_size), np.float32)

    def _batch(self, texts: Sequence[str]) -> np.ndarray:
        given = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.model.device)
        states = self.model(**given).last_hidden_state  # (n, tokens, d)
        mask = given["attention_mask"][:, :, None].to(states.dtype)
        means = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        vectors: np.ndarray = functional.normalize(means.float(), dim=1).cpu().numpy()
        return vectors


def sentence_encoder_hash(path: Path) -> str:
    """Return a hash of the encoder's files. Raises ModelError when it lacks one."""
    return hash_files(list(_files(path)))


def _files(path: Path) -> Iterator[Path]:
    for name in _FILES:
        if not (path / name).is_file():
            raise ModelError(f"{path} is no encoder of sentences: it has no {name}")
        yield path / name


def load_sentence_encoder(path: Path) -> SentenceEncoder:
    """Load a transformers encoder with its tokenizer. Raises ModelError when that cannot be done safely."""
    from transformers import AutoModel, AutoTokenizer

    list(_files(path))
    told: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(path), **told)
        loaded: Any = AutoModel.from_pretrained(
            str(path), use_safetensors=True, dtype=torch.float32, output_loading_info=True, **told
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the encoder of sentences in {path} cannot be loaded: {reason}") from error
    model, loading = loaded
    # A pooler on top is not used here, and checkpoints for other uses lack it.
    absent = sorted(name for name in loading["missing_keys"] if not name.startswith("pooler."))
    if absent:
        raise ModelError(f"{path} lacks {len(absent)} of the model's weights, {absent[0]} among them")
    if tokenizer.pad_token is None:
        raise ModelError(f"the tokenizer in {path} has no padding token, so texts cannot be read in batches")
    model.eval().to(device_here())
    most = min(getattr(model.config, "max_position_embeddings", 512), tokenizer.model_max_length, 8192)
    return SentenceEncoder(model, tokenizer, int(most))
