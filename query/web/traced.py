"""A stored trace as reports tell it, for the pages that show one."""

from proponent.query.report.build import build_report
from proponent.query.report.content import TracedQuery
from proponent.schema.settings import ReportSettings

from .explorer import Explorer


def traced_query(explorer: Explorer, name: str) -> TracedQuery:
    """Return a trace by its id, the beginning of one, or `last`. Raises NotFoundError."""
    with explorer.session() as session:
        made = build_report(explorer.lake, session, [name], ReportSettings(groups=False, words=0))
    return made.queries[0]
