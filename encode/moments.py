"""The optimizer's second moments, factored by rows and columns, from the files that training leaves behind.

V is approximated by r c^T / mean(r), with r the mean over columns and c the mean over rows (Adafactor,
arXiv:1804.04235, in means instead of sums). It factors, so 1 / sqrt(V) can be applied to both sides of a gradient's
projection and costs nothing.

Notable: an optimizer state that is not safetensors is loaded with `weights_only=True`; a pickle that wants more is
refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from proponent.schema.errors import MomentsError

from .gradients import MomentSum
from .layers import CoveredLayer

_FILE_KINDS = ("adam-factored", "adafactor", "estimated")
RELATIVE_FLOOR = 1e-8
"""Row and column moments below this share of their mean are raised to it: parameters that no example ever moved."""


@dataclass(frozen=True)
class FactoredMoments:
    """Row moments (m,) and column moments (n,) of every covered weight (m, n), float32, by the weight's name."""

    kind: str
    """adam-factored, adafactor or estimated."""
    rows: Mapping[str, torch.Tensor]
    columns: Mapping[str, torch.Tensor]

    def inverse_roots(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a (m,) and b (n,) with 1 / sqrt(V) = a b^T."""
        rows, columns = (_floored(side[name].double()) for side in (self.rows, self.columns))
        return (rows / rows.mean()).rsqrt().float(), columns.rsqrt().float()


def _floored(moments: torch.Tensor) -> torch.Tensor:
    return moments.clamp_min(moments.mean() * RELATIVE_FLOOR)


def read_moments(path: Path, model: nn.Module, layers: Sequence[CoveredLayer]) -> FactoredMoments:
    """Read second moments from safetensors, a `torch.save`d optimizer state or a Trainer's `optimizer.pt`.

    Raises MomentsError when the file cannot be read safely, lacks a covered weight or does not fit its shape.
    """
    if not path.is_file():
        raise MomentsError(f"{path} does not exist")
    moments = _from_safetensors(path) if path.suffix == ".safetensors" else _from_torch(path, model)
    return _checked(moments, layers, path)


def _from_safetensors(path: Path) -> FactoredMoments:
    from safetensors import SafetensorError, safe_open

    rows: dict[str, torch.Tensor] = {}
    columns: dict[str, torch.Tensor] = {}
    try:
        with safe_open(str(path), framework="pt") as file:
            kind = (file.metadata() or {}).get("kind", "adam-factored")
            if kind not in _FILE_KINDS:
                raise MomentsError(f"{path} has moments of an unknown kind, {kind!r}; known: {', '.join(_FILE_KINDS)}")
            for key in file.keys():  # noqa: SIM118  (the file is no mapping)
                name, _, side = key.rpartition(".")
                if side in ("row", "col"):
                    (rows if side == "row" else columns)[name] = file.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise MomentsError(f"{path} is not a safetensors file: {error}") from error
    return FactoredMoments(kind, rows, columns)


def _from_torch(path: Path, model: nn.Module) -> FactoredMoments:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler fails in as many ways as a file can be damaged
        # torch's own message recommends to load it unsafely.
        raise MomentsError(
            f"{path} cannot be loaded safely ({type(error).__name__}); save its tensors alone"
        ) from error
    if not _is_optimizer_state(state):
        raise MomentsError(f"{path} is no optimizer state: it has no 'state' and 'param_groups'")
    by_name = _by_name(state, model, path)
    rows, columns, kind = {}, {}, "adam-factored"
    for name, entry in by_name.items():
        if "exp_avg_sq_row" in entry:
            rows[name], columns[name], kind = entry["exp_avg_sq_row"], entry["exp_avg_sq_col"], "adafactor"
        elif "exp_avg_sq" in entry and entry["exp_avg_sq"].ndim == 2:
            rows[name], columns[name] = entry["exp_avg_sq"].mean(1), entry["exp_avg_sq"].mean(0)
    return FactoredMoments(kind, rows, columns)


def _is_optimizer_state(state: Any) -> bool:
    if not isinstance(state, dict):
        return False
    entries, groups = state.get("state"), state.get("param_groups")
    return (
        isinstance(entries, dict)
        and all(isinstance(entry, dict) for entry in entries.values())
        and isinstance(groups, list)
        and all(isinstance(group, dict) and isinstance(group.get("params"), list) for group in groups)
        and all(len(group.get("param_names", group["params"])) == len(group["params"]) for group in groups)
    )


def _by_name(state: dict[str, Any], model: nn.Module, path: Path) -> dict[str, dict[str, torch.Tensor]]:
    entries, groups = state["state"], state["param_groups"]
    if all("param_names" in group for group in groups):
        names = list(chain.from_iterable(group["param_names"] for group in groups))
        keys = list(chain.from_iterable(group["params"] for group in groups))
        return {name: entries[key] for name, key in zip(names, keys, strict=True) if key in entries}
    keys = list(chain.from_iterable(group["params"] for group in groups))
    for parameters in _possible_orders(model, n_groups=len(groups)):
        if len(parameters) == len(keys) and all(
            _fits(entries.get(key, {}), tensor) for key, (_, tensor) in zip(keys, parameters, strict=True)
        ):
            return {name: entries[key] for key, (name, _) in zip(keys, parameters, strict=True) if key in entries}
    raise MomentsError(f"{path} has {len(keys)} parameters whose shapes are not this model's, in no known order")


def _possible_orders(model: nn.Module, *, n_groups: int) -> list[list[tuple[str, torch.Tensor]]]:
    plain: list[tuple[str, torch.Tensor]] = list(model.named_parameters())
    if n_groups != 2:
        return [plain]
    # The Trainer's two groups: with weight decay (all but norms and biases), then without.
    norms = {
        f"{name}.{child}"
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        for child, _ in module.named_parameters(recurse=False)
    }
    without = [(name, tensor) for name, tensor in plain if name in norms or name.endswith("bias")]
    decayed = [(name, tensor) for name, tensor in plain if name not in {left for left, _ in without}]
    return [decayed + without, plain]


def _fits(entry: Mapping[str, torch.Tensor], parameter: torch.Tensor) -> bool:
    if "exp_avg_sq" in entry:
        return entry["exp_avg_sq"].shape == parameter.shape
    if "exp_avg_sq_row" in entry:
        return (*entry["exp_avg_sq_row"].shape, *entry["exp_avg_sq_col"].shape) == tuple(parameter.shape)
    return not entry  # a parameter that the optimizer never stepped


def _checked(moments: FactoredMoments, layers: Sequence[CoveredLayer], path: Path) -> FactoredMoments:
    names = [layer.name for layer in layers]
    missing = [name for name in names if name not in moments.rows or name not in moments.columns]
    if missing:
        raise MomentsError(f"{path} has no second moments for {len(missing)} weights, {missing[0]} among them")
    for layer in layers:
        shape = (*moments.rows[layer.name].shape, *moments.columns[layer.name].shape)
        if shape != tuple(layer.module.weight.shape):
            raise MomentsError(f"{path}: the moments of {layer.name} are for shape {shape}, the weight has another")
        sides = (moments.rows[layer.name], moments.columns[layer.name])
        if not all(torch.isfinite(side).all() and (side >= 0).all() and side.sum() > 0 for side in sides):
            raise MomentsError(f"{path}: the moments of {layer.name} are negative, all zero or not finite")
    keep = {name: moments.rows[name].float() for name in names}
    return FactoredMoments(moments.kind, keep, {name: moments.columns[name].float() for name in names})


def moments_from_sum(total: MomentSum, layers: Sequence[CoveredLayer], n_examples: int) -> FactoredMoments:
    """Return the moments estimated from the sums over a sample's gradients."""
    names = [layer.name for layer in layers]
    rows = {name: (row / n_examples).float() for name, row in zip(names, total.rows, strict=True)}
    columns = {name: (column / n_examples).float() for name, column in zip(names, total.columns, strict=True)}
    return FactoredMoments("estimated", rows, columns)
