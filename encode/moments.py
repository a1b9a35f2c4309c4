"""The optimizer's second moments, from the files that training leaves behind.

Adam keeps one for every weight. Factored, V is approximated by r c^T / mean(r), with r the mean over columns and c the
mean over rows (Adafactor, arXiv:1804.04235, in means instead of sums): 1 / sqrt(V) can then be applied to both sides of
a gradient's projection and costs nothing.

Notable: an optimizer state that is not safetensors is loaded with `weights_only=True`; a pickle that wants more is
refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from proponent.schema.errors import MomentsError

from .layers import CoveredLayer, trained_parameters
from .visitors import MomentSum

_FILE_KINDS = ("adam", "adam-factored", "adafactor", "estimated")
RELATIVE_FLOOR = 1e-8
"""Moments below this share of their mean are raised to it: parameters that no example ever moved."""


@dataclass(frozen=True)
class FactoredMoments:
    """Row moments (m,) and column moments (n,) of every covered matrix (m, n), float32, by the matrix's name."""

    kind: str
    """adam-factored, adafactor or estimated."""
    rows: Mapping[str, torch.Tensor]
    columns: Mapping[str, torch.Tensor]

    def inverse_roots(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a (m,) and b (n,) with 1 / sqrt(V) = a b^T; zeros for an expert that no example reached."""
        rows, columns = (_floored(side[name].double()) for side in (self.rows, self.columns))
        if not rows.any():
            return rows.float(), columns.float()
        return (rows / rows.mean()).rsqrt().float(), columns.rsqrt().float()


@dataclass(frozen=True)
class ElementwiseMoments:
    """Adam's second moment of every single weight: (m, n) float32 for every covered matrix, by the matrix's name."""

    values: Mapping[str, torch.Tensor]
    kind: str = "adam"

    def inverse_root(self, name: str) -> torch.Tensor:
        """Return 1 / sqrt(V), (m, n) float32; zeros for an expert that no example reached."""
        values = self.values[name].double()
        return (_floored(values).rsqrt() if values.any() else values).float()


Moments = FactoredMoments | ElementwiseMoments


def _floored(moments: torch.Tensor) -> torch.Tensor:
    return moments.clamp_min(moments.mean() * RELATIVE_FLOOR)


class _Entry(NamedTuple):
    """What a file holds for one parameter (..., m, n): its moments, or their means over n (..., m) and m (..., n)."""

    full: torch.Tensor | None = None
    row: torch.Tensor | None = None
    col: torch.Tensor | None = None

    def shape(self) -> tuple[int, ...] | None:
        if self.full is not None:
            return tuple(self.full.shape)
        if self.row is None or self.col is None or self.row.shape[:-1] != self.col.shape[:-1]:
            return None
        return (*self.row.shape, self.col.shape[-1])

    def factors(self, layer: CoveredLayer) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the row moments (m,) and the column moments (n,) of a layer."""
        if self.full is not None:
            matrix = layer.matrix(self.full.float())
            return matrix.mean(1), matrix.mean(0)
        assert self.row is not None
        assert self.col is not None
        row, col = (self.row, self.col) if layer.expert is None else (self.row[layer.expert], self.col[layer.expert])
        return (col.float(), row.float()) if layer.transposed else (row.float(), col.float())


def read_moments(path: Path, model: nn.Module, layers: Sequence[CoveredLayer], *, elementwise: bool = False) -> Moments:
    """Read second moments from safetensors, a `torch.save`d optimizer state or a Trainer's `optimizer.pt`.

    Raises MomentsError when the file cannot be read safely, lacks a covered weight, does not fit its shape, or does not
    hold a moment for every weight where they are asked for `elementwise`.
    """
    if not path.is_file():
        raise MomentsError(f"{path} does not exist")
    kind, entries = _from_safetensors(path) if path.suffix == ".safetensors" else _from_torch(path, model)
    _require_all(entries, layers, path)
    if elementwise:
        if any(entries[layer.parameter].full is None for layer in layers):
            raise MomentsError(f"{path} has second moments by rows and columns alone; take them with --moments file")
        values = {layer.name: layer.matrix(entries[layer.parameter].full.float()) for layer in layers}  # type: ignore[union-attr]
        _require_sound({layer: (values[layer.name],) for layer in layers}, path)
        return ElementwiseMoments(values)
    factors = {layer.name: entries[layer.parameter].factors(layer) for layer in layers}
    _require_sound({layer: factors[layer.name] for layer in layers}, path)
    rows, columns = ({name: pair[side].contiguous() for name, pair in factors.items()} for side in (0, 1))
    return FactoredMoments("adam-factored" if kind == "adam" else kind, rows, columns)


def _from_safetensors(path: Path) -> tuple[str, dict[str, _Entry]]:
    from safetensors import SafetensorError, safe_open

    entries: dict[str, _Entry] = {}
    try:
        with safe_open(str(path), framework="pt") as file:
            kind = (file.metadata() or {}).get("kind", "adam-factored")
            if kind not in _FILE_KINDS:
                raise MomentsError(f"{path} has moments of an unknown kind, {kind!r}; known: {', '.join(_FILE_KINDS)}")
            for key in file.keys():  # noqa: SIM118  (the file is no mapping)
                name, _, part = key.rpartition(".")
                if part in _Entry._fields:
                    entries[name] = entries.get(name, _Entry())._replace(**{part: file.get_tensor(key)})
    except (SafetensorError, OSError) as error:
        raise MomentsError(f"{path} is not a safetensors file: {error}") from error
    return kind, entries


def _from_torch(path: Path, model: nn.Module) -> tuple[str, dict[str, _Entry]]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler fails in as many ways as a file can be damaged
        # torch's own message recommends to load it unsafely.
        raise MomentsError(
            f"{path} cannot be loaded safely ({type(error).__name__}); save its tensors alone"
        ) from error
    if not _is_optimizer_state(state):
        raise MomentsError(f"{path} is no optimizer state: it has no 'state' and 'param_groups'")
    _require_known_keys(state["state"], path)
    entries = {name: _entry(kept) for name, kept in _by_name(state, model, path).items()}
    factored = any(entry.row is not None for entry in entries.values())
    return "adafactor" if factored else "adam", entries


def _require_known_keys(entries: Mapping[Any, Mapping[str, Any]], path: Path) -> None:
    kept: set[str] = set().union(*entries.values())
    if kept and not kept & {"exp_avg_sq", "exp_avg_sq_row", "row_var"}:
        held = ", ".join(sorted(map(str, kept)))
        raise MomentsError(f"{path} has no second moments of Adam or Adafactor, but {held}")


def _entry(kept: Mapping[str, torch.Tensor]) -> _Entry:
    """Return what an optimizer keeps for a parameter under the names of Adam, and of both Adafactors."""
    if "exp_avg_sq_row" in kept:  # transformers
        return _Entry(row=kept["exp_avg_sq_row"], col=kept["exp_avg_sq_col"])
    if "row_var" in kept:  # torch, with a dimension of one where the mean was taken
        return _Entry(row=kept["row_var"].squeeze(-1), col=kept["col_var"].squeeze(-2))
    return _Entry(full=kept.get("exp_avg_sq"))


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
    trained = trained_parameters(model)
    plain: list[tuple[str, torch.Tensor]] = [
        (name, tensor) for name, tensor in model.named_parameters() if name in trained
    ]
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


def _fits(kept: Mapping[str, torch.Tensor], parameter: torch.Tensor) -> bool:
    if "exp_avg_sq_row" not in kept and "row_var" not in kept and "exp_avg_sq" not in kept:
        return not kept or "variance" in kept  # never stepped, or a vector under torch's Adafactor
    return _entry(kept).shape() == tuple(parameter.shape)


def _require_all(entries: Mapping[str, _Entry], layers: Sequence[CoveredLayer], path: Path) -> None:
    shapes = {layer.parameter: tuple(getattr(layer.module, layer.attribute).shape) for layer in layers}
    found = {name: entries[name].shape() if name in entries else None for name in shapes}
    missing = [name for name, shape in found.items() if shape is None]
    if missing:
        raise MomentsError(f"{path} has no second moments for {len(missing)} weights, {missing[0]} among them")
    for name, shape in shapes.items():
        if found[name] != shape:
            raise MomentsError(f"{path}: the moments of {name} are for shape {found[name]}, the weight has {shape}")


def _require_sound(moments: Mapping[CoveredLayer, tuple[torch.Tensor, ...]], path: Path) -> None:
    for layer, sides in moments.items():
        # A router may have sent nothing to an expert in all of the training.
        found = all(side.any() for side in sides) or layer.expert is not None
        if not found or not all(torch.isfinite(side).all() and (side >= 0).all() for side in sides):
            raise MomentsError(f"{path}: the moments of {layer.name} are negative, all zero or not finite")


def moments_from_sum(total: MomentSum, layers: Sequence[CoveredLayer]) -> FactoredMoments:
    """Return the moments estimated from the sums over a sample's gradients."""
    names = [layer.name for layer in layers]
    rows = {name: (row / total.n_examples).float() for name, row in zip(names, total.rows, strict=True)}
    columns = {name: (column / total.n_examples).float() for name, column in zip(names, total.columns, strict=True)}
    return FactoredMoments("estimated", rows, columns)
