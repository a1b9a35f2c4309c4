"""Fitted state as safetensors files that are named after their content."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from proponent.schema.errors import DamagedLakeError
from proponent.schema.ids import stream_id

if TYPE_CHECKING:
    import torch


def save_artifact(folder: Path, tensors: Mapping[str, "torch.Tensor"]) -> str:
    """Save tensors under a name made from their content, and return it."""
    from safetensors.torch import save

    data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    name = f"{stream_id('artifact', [data])}.safetensors"
    path = folder / name
    if not path.exists():
        partial = folder / f"{name}.{os.getpid()}.partial"
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    return name


def load_artifact(folder: Path, name: str) -> dict[str, "torch.Tensor"]:
    """Load tensors by the name that `save_artifact` gave.

    Raises DamagedLakeError when the file is missing or its content does not match its name.
    """
    from safetensors.torch import load

    path = folder / name
    if not path.is_file():
        raise DamagedLakeError(f"{path} is missing; restore it from a backup, or fit anew under another name")
    data = path.read_bytes()
    if f"{stream_id('artifact', [data])}.safetensors" != name:
        raise DamagedLakeError(f"{path} was changed; restore it from a backup, or fit anew under another name")
    return load(data)
