"""Traces that are stored: found by what people call them."""

from sqlalchemy import select

from proponent.schema import catalog as models
from proponent.schema.errors import NotFoundError
from proponent.store.lake import LakeStore


def resolve_trace(lake: LakeStore, name: str) -> str:
    """Return a trace's id from the id, the beginning of one (at least 4 characters), or `last` for the newest.

    Raises NotFoundError when there is none, or more than one.
    """
    with lake.catalog.read() as session:
        if name == "last":
            newest = (
                select(models.Trace.trace_id).order_by(models.Trace.created_at.desc(), models.Trace.trace_id).limit(1)
            )
            found = list(session.scalars(newest))
        elif len(name) >= 4 and name.isalnum():
            found = list(session.scalars(select(models.Trace.trace_id).where(models.Trace.trace_id.startswith(name))))
        else:
            found = []
    if len(found) == 1:
        return found[0]
    if name == "last":
        raise NotFoundError("the lake has no traces yet; ask a question with `proponent trace`")
    problem = f"{len(found)} traces begin with {name!r}; give more of the id" if found else f"no trace {name!r}"
    raise NotFoundError(
        f"{problem}; list them with: SELECT trace_id, prompt, target FROM traces JOIN queries USING (query_id)"  # noqa: S608
    )
