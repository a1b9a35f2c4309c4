"""The pages, one module each: `PAGE` is seen, `ACTIONS` are done there, `DOWNLOADS` are files to be had there."""

from typing import Final

from proponent.query.web.page import Action, Download, Page

from . import compare, home, job, passage, results, sql, status, words

_MODULES: Final = (
    home,
    results,
    passage,
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
