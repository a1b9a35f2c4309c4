"""How large a model is, as far as that decides what an encoding costs."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from proponent.schema.errors import ModelError, SettingsError

_HEAD_WIDTH: Final = 128
"""Width over layers of the models that are guessed from a number of parameters."""
_VOCABULARY: Final = 32_000


@dataclass(frozen=True)
class Shape:
    """A model's sizes."""

    parameters: int
    """All weights, embeddings and head included."""
    covered: int
    """Weights of the matrices that an encoder sees, of experts those that one token is sent to."""
    sides: int
    """Rows and columns of these matrices, summed over all of them."""
    matrices: int
    layers: int
    width: int
    vocabulary: int


def shape_of_config(config: Any) -> Shape:
    """Return the shape of a transformers configuration's model, whose weights are never made.

    Raises ModelMismatchError for a model that no encoder covers.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from proponent.encode.layers import cover

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
    text = config.get_text_config()
    layers = cover(model, blocks=1).layers
    chosen = getattr(text, "num_experts_per_tok", None) or 1
    experts = Counter(layer.parameter for layer in layers if layer.expert is not None)
    shares = [chosen / experts[layer.parameter] if layer.expert is not None else 1.0 for layer in layers]
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        covered=round(sum(share * layer.size for share, layer in zip(shares, layers, strict=True))),
        sides=round(sum(share * sum(layer.shape) for share, layer in zip(shares, layers, strict=True))),
        matrices=round(sum(shares)),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        vocabulary=text.vocab_size,
    )


def read_config(path: Path) -> Any:
    """Return the configuration of a checkpoint's folder, or of a `config.json`. Raises ModelError."""
    from transformers import AutoConfig

    folder = path.parent if path.name == "config.json" else path
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json; name the folder of a checkpoint, or give --parameters")
    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {str(error).splitlines()[0]}") from error


def config_of_size(parameters: int) -> Any:
    """Return the configuration of a Llama of about so many parameters.

    Its width is 128 times its number of layers l, so that 12 l width^2 weights in the layers, with a vocabulary of
    32,000 in and out, come nearest to `parameters`. Raises SettingsError for a number below ten million.
    """
    from transformers import LlamaConfig

    if parameters < 10_000_000:
        raise SettingsError(f"--parameters must be at least 10M, not {parameters:,}; name a smaller model by --model")
    layers = min(range(1, 256), key=lambda n: abs(_weights_of(n) - parameters))
    width = layers * _HEAD_WIDTH
    return LlamaConfig(
        hidden_size=width,
        intermediate_size=round(width * 8 / 3),
        num_hidden_layers=layers,
        num_attention_heads=layers,
        vocab_size=_VOCABULARY,
    )


def _weights_of(layers: int) -> int:
    width = layers * _HEAD_WIDTH
    return 12 * layers * width**2 + 2 * _VOCABULARY * width
