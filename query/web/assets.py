"""Styles, scripts and pictures: in memory, under names that hold a hash of their content, to be cached for ever."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from proponent.query.report.filling import fill

_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
FOLDER: Final = "/static"


@dataclass(frozen=True)
class Asset:
    """One file as it is sent."""

    name: str
    """Name with the hash in it."""
    content: bytes
    media_type: str


@cache
def _all() -> dict[str, Asset]:
    """Return all files by their plain names; the styles of reports are one of them."""
    folder = files(__package__).joinpath("static")
    contents = {one.name: one.read_bytes() for one in folder.iterdir() if one.name.rpartition(".")[2] in _TYPES}
    contents["report.css"] = fill("report.css.j2", {}).encode()
    return {name: _asset(name, content) for name, content in contents.items()}


def _asset(name: str, content: bytes) -> Asset:
    stem, _, suffix = name.rpartition(".")
    return Asset(f"{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{suffix}", content, _TYPES[suffix])


@cache
def by_address() -> dict[str, Asset]:
    """Return all files by the names that they are asked for."""
    return {one.name: one for one in _all().values()}


def address(name: str) -> str:
    """Return where a page finds a file, by its plain name. Raises KeyError for one that is not there."""
    return f"{FOLDER}/{_all()[name].name}"
