"""Loading a local checkpoint of transformers, safely, and knowing exactly which one it is.

A checkpoint is a folder that `save_pretrained` wrote, a folder with adapters of peft over such a one, or a GGUF file.

Notable: weights come from safetensors or GGUF only, no code of a checkpoint is ever run, and nothing is looked up on a
network.
"""

import json
import logging
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from proponent.schema.errors import ModelError, ModelMismatchError
from proponent.schema.ids import content_id, stream_id

DeviceMap = str | dict[str, int | str]
_CHUNK = 1 << 22
_CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointFacts:
    """What the files of a checkpoint say, without loading them as a model."""

    path: Path
    """Folder of the model or of its adapters, or GGUF file."""
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


@dataclass(frozen=True)
class _Files:
    """Where the parts of a checkpoint lie."""

    folder: Path
    """Where the configuration and the base model's weights are."""
    weights: tuple[Path, ...]
    tokenizer: tuple[Path, ...]
    gguf: str | None = None
    adapter: Path | None = None

    @property
    def tokenizer_folder(self) -> Path:
        return self.tokenizer[0].parent

    def options(self) -> dict[str, Any]:
        """Return what every loader of transformers is told."""
        told: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        return told | ({"gguf_file": self.gguf} if self.gguf else {})


def read_facts(path: Path, *, context_length: int | None = None) -> CheckpointFacts:
    """Read what a checkpoint is. Raises ModelError when it is not a usable one.

    `context_length` is for models whose configuration names none.
    """
    files = _find_files(path)
    _require_safetensors(files.weights)
    config = _read_config(files)
    text = config.get_text_config()
    n_layers = getattr(text, "num_hidden_layers", None)
    if not isinstance(n_layers, int) or n_layers < 1:
        raise ModelError(f"the configuration of {path} does not say num_hidden_layers")
    context = context_length or _context_length(path, text)
    architectures = getattr(config, "architectures", None) or [type(config).__name__.removesuffix("Config")]
    return CheckpointFacts(
        path=path,
        architecture=architectures[0] + (" with adapters" if files.adapter else ""),
        n_layers=n_layers,
        context_length=context,
        weights_hash=hash_files(list(files.weights)),
        tokenizer_hash=hash_files(list(files.tokenizer)),
    )


def read_context_length(path: Path) -> int:
    """Return how many tokens a checkpoint's model reads. Raises ModelError when it does not say so."""
    return _context_length(path, _read_config(_find_files(path)).get_text_config())


def read_config(path: Path) -> Any:
    """Return the configuration of a folder with a model of its own. Raises ModelError for adapters and GGUF files."""
    files = _find_files(path)
    if files.adapter is not None or files.gguf is not None:
        raise ModelError(
            f"{path} is no folder with a whole model's config.json, of which a new model could be made; name a command "
            "that trains"
        )
    return _read_config(files)


def _context_length(path: Path, config: Any) -> int:
    found = next((size for size in (getattr(config, key, None) for key in _CONTEXTS) if isinstance(size, int)), 0)
    if found < 1:
        raise ModelError(f"the configuration of {path} does not say how many tokens the model reads; give --context N")
    return found


def _find_files(path: Path) -> _Files:
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"{path} {'is a folder, not a GGUF file' if path.is_dir() else 'does not exist'}")
        return _Files(path.parent, (path,), (path,), gguf=path.name)
    if (path / "adapter_config.json").is_file():
        return _find_adapter(path)
    config = path / "config.json"
    if not config.is_file():
        raise ModelError(f"{path} is no checkpoint: it has no config.json, and is no .gguf file")
    weights = sorted(file for file in path.glob("*.safetensors") if file.name.startswith("model"))
    if not weights:
        raise ModelError(f"{path} has no model*.safetensors; save the model with safetensors first")
    tokenizer = _tokenizer_files(path)
    if not tokenizer:
        raise ModelError(f"{path} has no tokenizer; save the tokenizer beside the model")
    return _Files(path, (config, *weights), tokenizer)


def _require_safetensors(weights: tuple[Path, ...]) -> None:
    from safetensors import SafetensorError, safe_open

    for file in weights:
        if file.suffix == ".safetensors":
            try:
                safe_open(str(file), framework="np")
            except (SafetensorError, OSError) as error:
                raise ModelError(f"{file} is not a safetensors file: {error}") from error


def _tokenizer_files(path: Path) -> tuple[Path, ...]:
    return tuple(path / name for name in _TOKENIZER_FILES if (path / name).is_file())


def _find_adapter(path: Path) -> _Files:
    config, weights = path / "adapter_config.json", path / "adapter_model.safetensors"
    named = _read_json(config).get("base_model_name_or_path")
    if not isinstance(named, str) or not (path / named).is_dir():
        raise ModelError(
            f"{config} names {named!r} as its base model, which is no folder; write the folder's full path there"
        )
    if not weights.is_file():
        raise ModelError(f"{path} has no adapter_model.safetensors; save the adapters with safetensors first")
    base = _find_files((path / named).resolve())
    tokenizer = _tokenizer_files(path) if (path / "tokenizer.json").is_file() else base.tokenizer
    return replace(base, weights=(config, weights, *base.weights), tokenizer=tokenizer, adapter=path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} is no JSON object")
    return values


def _read_config(files: _Files) -> Any:
    from transformers import AutoConfig

    if files.gguf is None:
        _read_json(files.folder / "config.json")  # its message is better
    try:
        return AutoConfig.from_pretrained(str(files.folder), **files.options())
    except Exception as error:  # hundreds of classes check their configuration, each in its own way
        remedy = "; is the file whole? Compare its size with the original's" if files.gguf else ""
        raise ModelError(
            f"the configuration of {files.weights[0]} cannot be read: {_first_line(error)}{remedy}"
        ) from error


def hash_files(files: list[Path]) -> str:
    """Return one hash of the files' names and contents."""
    return content_id("files", *(part for file in files for part in (file.name, stream_id("file", _chunks(file)))))


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def tokenizer_hash(path: Path) -> str:
    """Return the hash of a checkpoint's tokenizer. Raises ModelError when it has none."""
    return hash_files(list(_find_files(path).tokenizer))


def load_tokenizer(path: Path) -> Any:
    """Load a checkpoint's tokenizer. Raises ModelError when it has none, or one without character offsets."""
    from transformers import AutoTokenizer

    files = _find_files(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(files.tokenizer_folder), **files.options())
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"the tokenizer in {path} cannot be loaded: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer in {path} gives no character offsets; save it in the tokenizer.json form")
    return tokenizer


def require_unchanged(facts: CheckpointFacts) -> None:
    """Raise ModelMismatchError when a checkpoint's files are no longer those of `facts`, ModelError without any."""
    if read_facts(facts.path, context_length=facts.context_length) != facts:
        raise ModelMismatchError(
            f"the checkpoint in {facts.path} has changed since it was registered; register it anew"
        )


def load_checkpoint(
    facts: CheckpointFacts, *, precision: str = "float32", device_map: DeviceMap | None = None
) -> Checkpoint:
    """Load model and tokenizer, the model in a precision that torch names, on a GPU where there is one.

    A device map spreads the model: the name of one that accelerate makes, or the names of modules with where they are
    to be: the number of a GPU, cpu or disk. Raises ModelMismatchError when the files are no longer those of `facts`,
    when model and tokenizer do not fit, and when the model is not causal.
    """
    import torch

    from .causality import require_causal
    from .layers import freeze

    require_unchanged(facts)
    tokenizer = load_tokenizer(facts.path)
    files = _find_files(facts.path)
    if device_map is not None and (files.adapter is not None or files.gguf is not None):
        raise ModelError(f"{facts.path} is no folder with a whole model, and only such a one can have a device map")
    model = _load_model(files, getattr(torch, precision), device_map)
    if files.adapter is not None:
        model = _with_adapters(model, files.adapter)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise ModelMismatchError(f"the tokenizer in {facts.path} has more tokens than the model's embedding")
    if device_map is None:
        model.to(device_here())
    freeze(model)
    require_causal(model)
    return Checkpoint(facts, model, tokenizer)


def device_here() -> str:
    """Return where models run: on a GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _load_model(files: _Files, dtype: Any, device_map: DeviceMap | None = None) -> Any:
    from transformers import AutoModelForCausalLM

    from .spread import require_accelerate

    spread: dict[str, Any] = {}
    if device_map is not None:
        require_accelerate()
        # What a map puts on disk is read from the checkpoint itself, unless it has another precision there.
        spread = {"device_map": device_map, "offload_folder": tempfile.mkdtemp(prefix="proponent-offload-")}
    try:
        with _without_progress_bar():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(files.folder),
                **files.options(),
                use_safetensors=True,
                dtype=dtype,
                output_loading_info=True,
                **spread,
            )
        if spread:
            weakref.finalize(loaded[0], shutil.rmtree, spread["offload_folder"], ignore_errors=True)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if spread:
            shutil.rmtree(spread["offload_folder"], ignore_errors=True)
        raise ModelError(f"the model in {files.folder} cannot be loaded: {_first_line(error)}") from error
    model, loading = loaded
    if absent := sorted(loading["missing_keys"]):  # transformers would fill them with random numbers
        raise ModelError(
            f"the files in {files.folder} lack {len(absent)} of the model's weights, {absent[0]} among them"
        )
    return model


def _with_adapters(model: Any, folder: Path) -> Any:
    from safetensors.torch import load_file

    peft = _import_peft()
    config = _lora_config(peft, folder)
    try:
        adapted = peft.PeftModel(model, config)
        loading = peft.set_peft_model_state_dict(adapted, load_file(folder / "adapter_model.safetensors"))
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise ModelError(f"the adapters in {folder} cannot be loaded: {_first_line(error)}") from error
    absent = sorted(name for name in loading.missing_keys if ".lora_" in name)
    if absent or loading.unexpected_keys:
        raise ModelError(
            f"the adapters in {folder} are not those of the model: {(absent + loading.unexpected_keys)[0]}"
        )
    return adapted


def _lora_config(peft: Any, folder: Path) -> Any:
    """Return the configuration of LoRA adapters.

    Raises ModelError for other kinds: some have no matrices, so that the base model's, which nobody trained, would be
    taken for theirs.
    """
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the adapters in {folder} cannot be loaded: {_first_line(error)}") from error
    kind = "DoRA" if getattr(config, "use_dora", False) else str(getattr(config.peft_type, "value", config.peft_type))
    if kind != "LORA":
        raise ModelError(
            f"the adapters in {folder} are of the kind {kind}; only LoRA's can be encoded; merge them into their model "
            "with merge_and_unload, save that and register it"
        )
    return config


def _import_peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ModelError("adapters are loaded by peft, which is not installed; install proponent[lora]") from error
    return peft


def skeleton(facts: CheckpointFacts) -> Any:
    """Return the model without its weights, to see its parameters' names and shapes. Raises ModelError."""
    import torch
    from transformers import AutoModelForCausalLM

    files = _find_files(facts.path)
    peft = _import_peft() if files.adapter else None
    adapters = _lora_config(peft, files.adapter) if files.adapter else None
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(_read_config(files), trust_remote_code=False)  # type: ignore[no-untyped-call]
            if peft is not None:
                model = peft.PeftModel(model, adapters)
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        raise ModelError(f"the model in {facts.path} cannot be built: {_first_line(error)}") from error
    return model


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    gguf: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    bar = gguf.tqdm
    gguf.tqdm = partial(bar, disable=True)  # this one does not ask
    try:
        yield
    finally:
        gguf.tqdm = bar
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
