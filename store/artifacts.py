"""Fitted state as safetensors files that are named after their content."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from proponent.schema.errors import DamagedLakeError
from proponent.schema.ids import stream_id

from .place import LakePath, chunks_of, write_whole

if TYPE_CHECKING:
    import torch


def save_artifact(folder: LakePath, tensors: Mapping[str, "torch.Tensor"]) -> str:
    """Save tensors under a name made from their content, and return it."""
    from safetensors.torch import save

    data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    name = f"{stream_id('artifact', [data])}.safetensors"
    if not (folder / name).is_file():
        write_whole(folder / name, data)
    return name


def load_artifact(folder: LakePath, name: str) -> dict[str, "torch.Tensor"]:
    """Load tensors by the name that `save_artifact` gave.

    Raises DamagedLakeError when the file is missing or its content does not match its name.
    """
    from safetensors.torch import load

    path = folder / name
    try:
        data = b"".join(chunks_of(path))
    except FileNotFoundError as error:
        raise DamagedLakeError(
            f"{path} is missing; restore it from a backup, or fit anew under another name"
        ) from error
    if f"{stream_id('artifact', [data])}.safetensors" != name:
        raise DamagedLakeError(f"{path} was changed; restore it from a backup, or fit anew under another name")
    return load(data)
