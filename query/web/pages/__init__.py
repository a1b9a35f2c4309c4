"""The pages, one module each: `PAGE` is seen, `ACTIONS` are done there, `DOWNLOADS` are files to be had there."""

from typing import Final

from proponent.query.web.page import Action, Download, Page

from . import (
    compare,
    document,
    documents,
    evaluations,
    home,
    job,
    passage,
    queries,
    query,
    random_query,
    results,
    sql,
    status,
    words,
)

_MODULES: Final = (
    home,
    results,
    passage,
    documents,
    document,
    queries,
    random_query,  # before `query`, whose address takes any id
    query,
    evaluations,
    compare,
    sql,
    status,
    job,
    words,
)
"""In the order of the navigation."""

PAGES: Final[tuple[Page, ...]] = tuple(module.PAGE for module in _MODULES)
ACTIONS: Final[tuple[Action, ...]] = tuple(action for module in _MODULES for action in getattr(module, "ACTIONS", ()))
DOWNLOADS: Final[tuple[Download, ...]] = tuple(
    download for module in _MODULES for download in getattr(module, "DOWNLOADS", ())
)
