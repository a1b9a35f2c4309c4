"""What can be compared, and how it is written.

`[ENCODER:]METHOD[@CURVATURE]`, `bm25`, `[ENCODER:]hybrid`, `random`, `run:NAME=FILE`, `dense:[NAME=]FOLDER`.

Notable: a method is called what the user calls it, in every table and file.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import select

from proponent.encode.methods import METHODS
from proponent.schema import catalog as models
from proponent.schema.errors import SettingsError
from proponent.schema.settings import BM25, HYBRID, REFERENCE
from proponent.schema.tables import encodings_table
from proponent.store.full_text import has_full_text
from proponent.store.lake import LakeStore
from proponent.store.snapshots import Snapshot

RANDOM: Final = "random"
RUN: Final = "run"
DENSE: Final = "dense"
ALL: Final = "all"
_FUSED: Final = "trackstar"
"""What `hybrid` joins with words."""
_NAME: Final = re.compile(r"[\w.-]+")


class Spec(NamedTuple):
    """One method of an evaluation."""

    name: str
    kind: str
    """A method of gradients, or bm25, hybrid, random, run, dense."""
    encoder: str | None = None
    curvature: str | None = None
    path: Path | None = None

    @property
    def influence(self) -> str | None:
        """The method of gradients that it is or that it joins."""
        return self.kind if self.kind in METHODS else _FUSED if self.kind == HYBRID else None


def parse_method(text: str) -> Spec:
    """Return the method that a text names. Raises SettingsError for one that names none."""
    name = text.strip()
    head, _, rest = name.partition(":")
    if head == RUN:
        called, _, file = rest.partition("=")
        if not _NAME.fullmatch(called) or not file:
            raise SettingsError(
                f"{text!r} is no run; write run:NAME=FILE, with a TREC run file and a name of letters, digits and ._-"
            )
        return Spec(called, RUN, path=Path(file))
    if head == DENSE:
        called, named, folder = rest.partition("=")
        if not named:
            called, folder = Path(rest).name, rest
        if not folder or not _NAME.fullmatch(called):
            raise SettingsError(f"{text!r} names no encoder of sentences; write dense:FOLDER or dense:NAME=FOLDER")
        return Spec(f"dense:{called}", DENSE, path=Path(folder))
    encoder, between, method = name.rpartition(":")
    method, at, curvature = method.partition("@")
    known = (*METHODS, BM25, HYBRID, RANDOM)
    if method not in known or (between and not encoder) or (at and not curvature):
        raise SettingsError(
            f"{text!r} is no method; write [ENCODER:]METHOD[@CURVATURE] with one of {', '.join(known)}, run:NAME=FILE, "
            "dense:FOLDER, or all"
        )
    if method in (BM25, RANDOM) and (encoder or curvature):
        raise SettingsError(f"method {method!r} reads no encodings; leave out encoder and curvature")
    if curvature and method in METHODS and not METHODS[method].whitened:
        raise SettingsError(f"method {method!r} takes no curvature; leave out @{curvature}")
    return Spec(name, method, encoder or None, curvature or None)


def chosen_methods(lake: LakeStore, at: Snapshot, texts: Sequence[str]) -> list[Spec]:
    """Return the methods that texts name, in order, each once. Raises SettingsError for two of one name."""
    specs: dict[str, Spec] = {}
    for text in texts:
        for spec in allowed_methods(lake, at) if text.strip() == ALL else [parse_method(text)]:
            if specs.setdefault(spec.name, spec) != spec:
                raise SettingsError(f"two methods are called {spec.name!r}; give one of them another name")
    return [*specs.values()]


def allowed_methods(lake: LakeStore, at: Snapshot) -> list[Spec]:
    """Return every method that a lake's encoders, curvatures and full-text index allow, and the random order."""
    with lake.catalog.read() as session:
        encoders = session.scalars(select(models.Encoder).order_by(models.Encoder.name)).all()
        fitted = session.scalars(select(models.Curvature).order_by(models.Curvature.name)).all()
    encoders = [row for row in encoders if at.has(encodings_table(row.name))]
    specs = []
    for row in encoders:
        curvatures = [one.name for one in fitted if one.encoder == row.name and one.name != REFERENCE]
        for method in METHODS.values():
            if method.needs_moments == (row.moments != "none"):
                name = f"{row.name}:{method.name}"
                specs.append(Spec(name, method.name, row.name))
                if method.whitened:
                    specs += [Spec(f"{name}@{one}", method.name, row.name, one) for one in curvatures]
    if has_full_text(lake, at):
        specs.append(Spec(BM25, BM25))
        specs += [Spec(f"{row.name}:{HYBRID}", HYBRID, row.name) for row in encoders if row.moments != "none"]
    return [*specs, Spec(RANDOM, RANDOM)]
