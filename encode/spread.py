"""Models that are larger than one device: their layers on several, in main memory or on disk, by accelerate.

Notable: accelerate's hooks fetch a module's weights before it runs and let go of them after it, and autograd would keep
every one of them until gradients have passed back. Here it keeps a note of which weight it needs, and fetches that
again then, so that of the weights that lie elsewhere a device holds those of one module at a time. What is computed is
the same, to the last bit on the CPU.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from proponent.schema.errors import ModelError


def require_accelerate() -> None:
    """Raise ModelError where models cannot be spread; keep accelerate from remarking on what was asked for."""
    try:
        import accelerate  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModelError(
            "a device map needs accelerate, which is not installed; pip install 'proponent[spread]'"
        ) from error
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)


def main_device(model: Any) -> torch.device:
    """Return the device that a model's inputs belong on: of a spread one, where its first layers run."""
    hook = getattr(model, "_hf_hook", None)
    if hook is not None and hook.execution_device is not None:
        return torch.device(hook.execution_device)
    device: torch.device = model.device
    return device


def forward_of(module: nn.Module) -> str:
    """Return the attribute that holds what a module does, inside of what moves its weights and inputs."""
    return "_old_forward" if hasattr(module, "_hf_hook") else "forward"


class _Note(NamedTuple):
    """Which part of which weight is needed on the way back."""

    hook: Any
    name: str
    size: torch.Size
    stride: tuple[int, ...]
    offset: Any

    def fetch(self) -> torch.Tensor:
        weight: torch.Tensor = self.hook.weights_map[self.name].to(self.hook.execution_device)
        return weight.contiguous().as_strided(self.size, self.stride, self.offset)


@contextmanager
def fetching_again(model: nn.Module) -> Iterator[None]:
    """Let autograd keep none of the weights that are fetched for a pass; they are fetched again on the way back."""
    fetched: dict[int, tuple[Any, str]] = {}
    hooks = {module: hook for module in model.modules() if (hook := _fetching_hook(module)) is not None}
    if not hooks:
        yield
        return

    def before(hook: Any, original: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        moved = original(module, *args, **kwargs)
        fetched.clear()  # of a module inside another, the outer one's are kept as ever
        for name, weight in module.named_parameters(recurse=False):
            fetched[weight.untyped_storage().data_ptr()] = (hook, name)
        return moved

    def after(original: Any, *args: Any, **kwargs: Any) -> Any:
        fetched.clear()  # their memory may be anything from now on
        return original(*args, **kwargs)

    def keep(tensor: torch.Tensor) -> torch.Tensor | _Note:
        found = fetched.get(tensor.untyped_storage().data_ptr())
        if found is None:
            return tensor
        return _Note(*found, tensor.size(), tensor.stride(), tensor.storage_offset())

    def give(kept: torch.Tensor | _Note) -> torch.Tensor:
        return kept.fetch() if isinstance(kept, _Note) else kept

    for hook in hooks.values():
        hook.pre_forward = partial(before, hook, hook.pre_forward)
        hook.post_forward = partial(after, hook.post_forward)
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, give):
            yield
    finally:
        for hook in hooks.values():
            del hook.pre_forward, hook.post_forward


def _fetching_hook(module: nn.Module) -> Any:
    """Return the hook that fetches a module's own weights; None where they stay."""
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", [hook]):
        if getattr(one, "offload", False) and any(True for _ in module.named_parameters(recurse=False)):
            return one
    return None
