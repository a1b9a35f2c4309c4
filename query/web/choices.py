"""What can be chosen when a question is asked: methods, encoders, curvatures."""

from typing import Final

import msgspec
from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.settings import IDENTITY, SEARCHES

from .explorer import Explorer

TOLD: Final = {
    "trackstar": "TrackStar: whitened gradients, with optimizer moments",
    "logra": "LoGra: whitened gradients, without moments",
    "trak": "TRAK: whitened gradients, not of unit norm",
    "gradcos": "Cosine of gradients",
    "graddot": "Dot product of gradients",
    "bm25": "Words, by BM25",
    "hybrid": "TrackStar and BM25, by their ranks",
}
"""What the methods are called where one is chosen."""


class Encoder(msgspec.Struct, frozen=True, kw_only=True):
    """An encoder that can be asked."""

    name: str
    model: str
    moments: str
    curvatures: list[str]


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What a question can be asked with."""

    methods: dict[str, str]
    encoders: list[Encoder]
    curvatures: list[str]
    """Of any encoder."""


def choices(explorer: Explorer) -> Choices:
    """Return what there is in the lake now."""
    return explorer.kept_settled("choices", lambda: _choices(explorer))


def _choices(explorer: Explorer) -> Choices:
    with explorer.lake.catalog.read() as session:
        encoders = session.execute(
            select(models.Encoder.name, models.Encoder.moments, models.Model.name)
            .join(models.Model, models.Model.model_id == models.Encoder.model_id)
            .order_by(models.Encoder.name)
        ).all()
        fitted = session.execute(
            select(models.Curvature.encoder, models.Curvature.name).order_by(models.Curvature.name)
        ).all()
    return Choices(
        methods={name: TOLD.get(name, name) for name in SEARCHES},
        encoders=[
            Encoder(
                name=name,
                model=model,
                moments=moments,
                curvatures=[*(one for of, one in fitted if of == name), IDENTITY],
            )
            for name, moments, model in encoders
        ],
        curvatures=list(dict.fromkeys([*(name for _, name in fitted), IDENTITY])),
    )
