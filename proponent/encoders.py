"""Encoders of a lake, loaded once: what the catalog says of them, put together with model and fitted state.

Both ways, in and out, need a loaded encoder, and neither layer may import the other; so it is loaded here.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.errors import MomentsError, NotFoundError, SettingsError
from proponent.schema.settings import EncoderSettings
from proponent.store.lake import LakeStore

from .threads import wait_quietly

if TYPE_CHECKING:
    from proponent.encode.checkpoint import Checkpoint, DeviceMap
    from proponent.encode.encoder import Encoder
    from proponent.encode.moments import Moments
    from proponent.query.evaluate.tail import Patched


_LOADING: Final = threading.Lock()
"""transformers loses weights when two threads load a model at once."""


def encoder_row(lake: LakeStore, name: str | None, *, with_moments: bool | None = None) -> models.Encoder:
    """Return a registered encoder, by default the only one (of those with, or without, second moments).

    Raises NotFoundError when there is none of the name, or several to choose from.
    """
    with lake.catalog.read() as session:
        rows = list(session.scalars(select(models.Encoder).order_by(models.Encoder.name)))
    if name is not None:
        for row in rows:
            if row.name == name:
                return row
    fitting = [row for row in rows if with_moments is None or (row.moments != "none") == with_moments]
    if name is None and len(fitting) == 1:
        return fitting[0]
    known = ", ".join(row.name for row in rows) or "none yet; make one with `proponent encode`"
    wanted = f"no encoder {name!r}" if name is not None else "no encoder fits" if not fitting else "name the encoder"
    if name is None and not fitting and rows and with_moments is not None:
        flag = "auto" if with_moments else "none"
        raise NotFoundError(
            f"no encoder {'with' if with_moments else 'without'} second moments; make one with "
            f"`proponent encode LAKE --moments {flag} --encoder NAME` (there are: {known})"
        )
    raise NotFoundError(f"{wanted}; registered: {known}")


class EncoderCache:
    """Loads models and encoders when they are first asked for, and keeps them."""

    def __init__(self, lake: LakeStore, *, device_map: "DeviceMap | None" = None) -> None:
        wait_quietly()
        self._lake = lake
        self.device_map = device_map
        """Where the parts of models go that are larger than one device."""
        self._checkpoints: dict[tuple[str, str], Checkpoint] = {}
        self._encoders: dict[str, Encoder] = {}

    def checkpoint(self, model: models.Model, *, precision: str = "float32") -> "Checkpoint":
        """Return a registered model, loaded. Raises ModelMismatchError when its files have changed."""
        from proponent.encode.checkpoint import load_checkpoint
        from proponent.ingest.models import facts_of

        key = (model.model_id, precision)
        if key not in self._checkpoints:
            with _LOADING:
                self._checkpoints[key] = load_checkpoint(
                    facts_of(model), precision=precision, device_map=self.device_map
                )
        return self._checkpoints[key]

    def encoder(self, row: models.Encoder) -> "Encoder":
        """Return a fitted encoder, loaded."""
        from proponent.ingest.encoding import load_encoder

        if row.encoder_id not in self._encoders:
            with self._lake.catalog.read() as session:
                model = session.get_one(models.Model, row.model_id)
            checkpoint = self.checkpoint(model, precision=row.settings.get("precision", "float32"))
            self.keep(row, load_encoder(self._lake, row, checkpoint))
        return self._encoders[row.encoder_id]

    def find(self, name: str | None, *, with_moments: bool) -> "tuple[models.Encoder, Encoder]":
        """Return the encoder that `encoder_row` finds, loaded."""
        row = encoder_row(self._lake, name, with_moments=with_moments)
        return row, self.encoder(row)

    def in_full_precision(self, row: models.Encoder) -> "Encoder":
        """Return a fitted encoder whose model is in float32, whatever precision it was made with.

        Raises SettingsError for a model that is spread over devices.
        """
        from dataclasses import replace

        from proponent.encode.encoder import Projector

        self._require_whole("full gradients take")
        made = self.encoder(row)
        with self._lake.catalog.read() as session:
            checkpoint = self.checkpoint(session.get_one(models.Model, row.model_id))
        if made.projector.checkpoint is checkpoint:
            return made
        return replace(made, projector=Projector(checkpoint, made.projector.settings, made.projector.moments))

    def row(self, name: str | None, *, with_moments: bool | None = None) -> models.Encoder:
        """Return a registered encoder, as `encoder_row` does."""
        return encoder_row(self._lake, name, with_moments=with_moments)

    def patched(self, name: str | None, encoders: Sequence[str]) -> "Patched":
        """Return a model in float32 with its optimizer's moments: by name, that of some encoders, or the only one.

        Raises SettingsError for encoders of several models and for a model that is spread over devices, NotFoundError
        where there is no such model.
        """
        from proponent.ingest.models import get_model
        from proponent.query.evaluate.tail import Patched

        self._require_whole("training steps take")
        ids = {self.row(encoder).model_id for encoder in encoders}
        if name is None and len(ids) > 1:
            raise SettingsError("these encoders are of several models; name the one that is patched with --model")
        if name is None and ids:
            with self._lake.catalog.read() as session:
                model = session.get_one(models.Model, ids.pop())
        else:
            model = get_model(self._lake, name)
        checkpoint = self.checkpoint(model)
        return Patched(model.model_id, model.name, checkpoint, _moments(model, checkpoint))

    def loads_patched(self, model_id: str) -> "Callable[[LakeStore], Patched]":
        """Return what loads a model as `patched` does on another machine, which gets it with a task."""
        return partial(_load_patched, model_id=model_id)

    def loads_encoder(self, row: models.Encoder) -> "Callable[[LakeStore], Encoder]":
        """Return what loads an encoder as `encoder` does on another machine, which gets it with a task."""
        self._require_whole("nodes of a cluster take")
        return partial(_load_encoder, name=row.name)

    def _require_whole(self, what: str) -> None:
        if self.device_map is not None:
            raise SettingsError(f"{what} a model that is on one device; leave out the device map")

    def keep(self, row: models.Encoder, encoder: "Encoder") -> None:
        """Keep an encoder that was just fitted."""
        self._encoders[row.encoder_id] = encoder


def _load_patched(lake: LakeStore, model_id: str) -> "Patched":
    with lake.catalog.read() as session:
        name = session.get_one(models.Model, model_id).name
    return EncoderCache(lake).patched(name, ())


def _load_encoder(lake: LakeStore, name: str) -> "Encoder":
    return EncoderCache(lake).encoder(encoder_row(lake, name))


def _moments(model: models.Model, checkpoint: "Checkpoint") -> "Moments | None":
    """Return the second moments that a model was registered with, weight by weight where its file has as many."""
    from proponent.ingest.encoding import moments_of_model

    if model.moments_path is None:
        return None
    try:
        return moments_of_model(model, checkpoint, EncoderSettings(moments="adam", blocks=1))
    except MomentsError:  # a file by rows and columns; one that is damaged fails again
        return moments_of_model(model, checkpoint, EncoderSettings(moments="file", blocks=1))
