"""Reports as files: one, or a folder of an index and a page for each question; what is written appears whole."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from proponent.query.export.files import whole
from proponent.schema.errors import InputError

from .content import Report
from .data import as_data, to_json
from .folder import INDEX, folder_files
from .render import render_html, render_markdown

Render = Callable[[Report, Path | None], str]


def _json(report: Report, _templates: Path | None) -> str:
    return to_json(as_data(report)) + "\n"


_RENDERERS: Final[Mapping[str, Render]] = {
    ".html": lambda report, templates: render_html(report, templates=templates),
    ".htm": lambda report, templates: render_html(report, templates=templates),
    ".md": lambda report, templates: render_markdown(report, templates=templates),
    ".json": _json,
}


def is_folder(path: Path, *, named_as_one: bool = False) -> bool:
    """Return whether a report is written to a folder: one that is there, or is named with a slash."""
    return named_as_one or path.is_dir()


def require_form(path: Path, *, folder: bool) -> None:
    """Raise InputError for a place that no report can be written to, before minutes of work end in that."""
    if folder:
        others = [] if not path.is_dir() else [one for one in path.iterdir() if not one.name.startswith(".")]
        if others and not (path / INDEX).is_file():
            raise InputError(f"{path} holds other things; name a new folder, or that of an earlier report")
        return
    if path.suffix.lower() not in _RENDERERS:
        raise InputError(f"{path}: a report is written as .html, .md or .json, or to a folder named with a slash")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} does not exist; make the folder first")


def files_of(report: Report, path: Path, *, templates: Path | None = None) -> dict[Path, str]:
    """Return the files that a report is written as, by their places; `path` is a file, or a folder that is there."""
    if path.is_dir():
        return {path / name: text for name, text in folder_files(report, templates=templates).items()}
    return {path: _RENDERERS[path.suffix.lower()](report, templates)}


def write_report(report: Report, path: Path, *, templates: Path | None = None, folder: bool = False) -> Path:
    """Write a report as HTML, Markdown or JSON by the file's suffix, or into a folder; return its path.

    Every file appears whole or not at all, and an index after its pages. Pages of an earlier report that the folder
    had are removed. Raises InputError for another suffix, and for a folder that holds other things.
    """
    folder = is_folder(path, named_as_one=folder)
    require_form(path, folder=folder)
    if folder:
        path.mkdir(parents=True, exist_ok=True)
    files = files_of(report, path, templates=templates)
    for file, text in files.items():
        with whole(file) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")
    if folder:
        for old in path.glob("[0-9]*.html"):
            if old not in files and old.stem.isdecimal():
                old.unlink()
    return path
