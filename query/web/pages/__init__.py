"""The pages, one module each: `PAGE` is what is to be seen, `ACTIONS` what can be done there."""

from typing import Final

from proponent.query.web.page import Action, Page

from . import (
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
    sql,
    status,
    job,
)
"""In the order of the navigation."""

PAGES: Final[tuple[Page, ...]] = tuple(module.PAGE for module in _MODULES)
ACTIONS: Final[tuple[Action, ...]] = tuple(action for module in _MODULES for action in getattr(module, "ACTIONS", ()))
