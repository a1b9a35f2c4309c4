"""Loading a local checkpoint of transformers, safely, and knowing exactly which one it is.

Notable: weights come from safetensors only, no code of a checkpoint is ever run, and nothing is looked up on a network.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proponent.schema.errors import ModelError, ModelMismatchError
from proponent.schema.ids import content_id, stream_id

_CHUNK = 1 << 22
_SIZES = ("num_hidden_layers", "max_position_embeddings")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointFacts:
    """What the files of a checkpoint say, without loading them as a model."""

    path: Path
    architecture: str
    n_layers: int
    context_length: int
    weights_hash: str
    tokenizer_hash: str


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model, frozen and in evaluation mode, with its tokenizer."""

    facts: CheckpointFacts
    model: Any
    tokenizer: Any


def read_facts(path: Path) -> CheckpointFacts:
    """Read what a checkpoint is. Raises ModelError when the folder is not a usable checkpoint."""
    config_path = path / "config.json"
    if not config_path.is_file():
        raise ModelError(f"{path} is no checkpoint: it has no config.json")
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{config_path} is not JSON: {error}") from error
    sizes: list[Any] = [config.get(key) for key in _SIZES] if isinstance(config, dict) else [None]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ModelError(
            f"{config_path} does not say {' and '.join(_SIZES)}; this version reads models of the Llama kind"
        )
    weights = sorted(path.glob("*.safetensors"))
    weights = [file for file in weights if file.name.startswith("model")]
    if not weights:
        raise ModelError(f"{path} has no model*.safetensors; save the model with safetensors first")
    tokenizer = [path / name for name in _TOKENIZER_FILES if (path / name).is_file()]
    if not tokenizer:
        raise ModelError(f"{path} has no tokenizer; save the tokenizer beside the model")
    return CheckpointFacts(
        path=path,
        architecture=(config.get("architectures") or ["unknown"])[0],
        n_layers=sizes[0],
        context_length=sizes[1],
        weights_hash=hash_files([config_path, *weights]),
        tokenizer_hash=hash_files(tokenizer),
    )


def hash_files(files: list[Path]) -> str:
    """Return one hash of the files' names and contents."""
    return content_id("files", *(part for file in files for part in (file.name, stream_id("file", _chunks(file)))))


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def load_tokenizer(path: Path) -> Any:
    """Load a checkpoint's tokenizer. Raises ModelError when it has none, or one without character offsets."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the tokenizer in {path} cannot be loaded: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer in {path} gives no character offsets; save it in the tokenizer.json form")
    return tokenizer


def load_checkpoint(facts: CheckpointFacts) -> Checkpoint:
    """Load model (in float32) and tokenizer.

    Raises ModelMismatchError when the files are no longer those of `facts`, or when model and tokenizer do not fit.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from .layers import freeze

    if read_facts(facts.path) != facts:
        raise ModelMismatchError(
            f"the checkpoint in {facts.path} has changed since it was registered; register it anew"
        )
    tokenizer = load_tokenizer(facts.path)
    try:
        with _without_progress_bar():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(facts.path),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"the model in {facts.path} cannot be loaded: {_first_line(error)}") from error
    model, loading = loaded
    if absent := sorted(loading["missing_keys"]):  # transformers would fill them with random numbers
        raise ModelError(f"the files in {facts.path} lack {len(absent)} of the model's weights, {absent[0]} among them")
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise ModelMismatchError(f"the tokenizer in {facts.path} has more tokens than the model's embedding")
    freeze(model)
    return Checkpoint(facts, model, tokenizer)


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
