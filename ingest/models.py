"""Registering checkpoints: which files they are, by hash, and where they lie."""

import json
import re
from pathlib import Path
from typing import Any

from sqlalchemy import select

from proponent.encode.checkpoint import CheckpointFacts, hash_files, load_tokenizer, read_facts, skeleton
from proponent.schema import catalog as models
from proponent.schema.errors import ModelError, NotFoundError, SettingsError
from proponent.schema.ids import content_id
from proponent.store.lake import LakeStore
from proponent.store.runs import new_run

_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_MOMENTS_FILES = ("second_moments.safetensors", "optimizer.pt")


def require_name(name: str, *, what: str) -> str:
    """Return a name that can be part of a table's name. Raises SettingsError for any other."""
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{what} {name!r} must be lower-case letters, digits and _, beginning with a letter")
    return name


def add_model(
    lake: LakeStore, path: Path, *, name: str, moments: Path | None = None, context_length: int | None = None
) -> models.Model:
    """Register a checkpoint, with the optimizer's second moments beside it or at `moments`.

    `context_length` is for models whose configuration does not say how many tokens they read.

    Registering the same files under the same name again changes nothing. Raises SettingsError when the name belongs
    to other files, ModelError when the folder holds no usable checkpoint.
    """
    require_name(name, what="the model's name")
    path = path.resolve()
    facts = read_facts(path, context_length=context_length)
    _require_lora(path)
    load_tokenizer(path)  # its mistakes should not wait until the corpus is read
    moments = moments.resolve() if moments else _moments_beside(path if path.is_dir() else path.parent)
    if moments is not None and not moments.is_file():
        raise ModelError(f"{moments} does not exist")
    moments_hash = hash_files([moments]) if moments else None
    row = models.Model(
        model_id=content_id("model", facts.weights_hash, facts.tokenizer_hash, moments_hash or ""),
        name=name,
        path=str(path),
        architecture=facts.architecture,
        n_parameters=sum(parameter.numel() for parameter in skeleton(facts).parameters()),
        n_layers=facts.n_layers,
        context_length=facts.context_length,
        weights_hash=facts.weights_hash,
        tokenizer_hash=facts.tokenizer_hash,
        moments_path=str(moments) if moments else None,
        moments_hash=moments_hash,
    )
    with lake.catalog.write() as session:
        held = session.scalars(select(models.Model).where(models.Model.name == name)).first()
        twin = session.get(models.Model, row.model_id)
        if held is not None and held.model_id != row.model_id:
            raise SettingsError(f"the name {name!r} belongs to another checkpoint ({held.path}); choose another name")
        if twin is not None and twin.name != name:
            raise SettingsError(f"this checkpoint is registered already, as {twin.name!r}")
        if held is not None and context_length not in (None, held.context_length):
            raise SettingsError(
                f"model {name!r} was registered with a context of {held.context_length} tokens; that cannot be changed"
            )
        if held is not None and (held.path, held.moments_path) == (row.path, row.moments_path):
            return held
        run = new_run("model", {"name": name, "path": row.path, "moments": row.moments_path})
        run.status, run.finished_at = "done", models.now()
        session.add(run)
        if held is not None:
            held.path, held.moments_path = row.path, row.moments_path  # the files have moved
            return held
        session.add(row)
    return row


def _require_lora(path: Path) -> None:
    """Raise ModelError for adapters that an encoder would pass by, and see their base model's gradients instead."""
    config = path / "adapter_config.json"
    given = json.loads(config.read_text("utf-8")) if config.is_file() else {"peft_type": "LORA"}
    if given.get("peft_type") != "LORA" or given.get("use_dora"):
        raise ModelError(
            f"{config}: an encoder sees plain LoRA adapters alone; merge others into their model (merge_and_unload), "
            "save that and register it"
        )


def _moments_beside(path: Path) -> Path | None:
    return next((path / name for name in _MOMENTS_FILES if (path / name).is_file()), None)


def get_model(lake: LakeStore, name: str | None) -> models.Model:
    """Return a registered model, by default the only one. Raises NotFoundError."""
    with lake.catalog.read() as session:
        rows = list(session.scalars(select(models.Model).order_by(models.Model.name)))
    if name is None and len(rows) == 1:
        return rows[0]
    known = ", ".join(row.name for row in rows) or "none yet; add one with `proponent model add`"
    for row in rows:
        if row.name == name:
            return row
    raise NotFoundError(f"{'name the model' if name is None else f'no model {name!r}'}; registered: {known}")


def model_of_encoder(lake: LakeStore, encoder: str) -> str | None:
    """Return the name of the model that an encoder was made with, None where there is no such encoder yet."""
    made_with = select(models.Model.name).join(models.Encoder).where(models.Encoder.name == encoder)
    with lake.catalog.read() as session:
        return session.scalars(made_with).first()


def facts_of(model: models.Model) -> CheckpointFacts:
    """Return what a registered model's files must be."""
    return CheckpointFacts(
        path=Path(model.path),
        architecture=model.architecture,
        n_layers=model.n_layers,
        context_length=model.context_length,
        weights_hash=model.weights_hash,
        tokenizer_hash=model.tokenizer_hash,
    )


def describe(model: models.Model) -> dict[str, Any]:
    """Return a registered model as a row for people."""
    return {
        "name": model.name,
        "architecture": model.architecture,
        "parameters": model.n_parameters,
        "layers": model.n_layers,
        "context": model.context_length,
        "weights": model.weights_hash,
        "moments": model.moments_path,
        "path": model.path,
    }
