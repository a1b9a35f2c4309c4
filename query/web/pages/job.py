"""A job while it runs: how far it is, and where its result is once it has ended."""

from typing import Annotated

import msgspec

from proponent.query.web.explorer import Explorer
from proponent.query.web.jobs import JobView
from proponent.query.web.page import Action, Page


class OneJob(msgspec.Struct, frozen=True, kw_only=True):
    """Which job."""

    job: Annotated[str, msgspec.Meta(max_length=64, description="Id of the job.")]


def _load(explorer: Explorer, params: OneJob) -> JobView:
    return explorer.jobs.view(params.job)


def _cancel(explorer: Explorer, fields: OneJob) -> JobView:
    return explorer.jobs.cancel(fields.job)


PAGE = Page(
    name="job",
    path="/jobs/{job}",
    title="In progress",
    summary="A job: how far it is, and where its result is",
    params=OneJob,
    data=JobView,
    load=_load,
    moved=lambda view: view.url,
)

ACTIONS = (
    Action(
        name="cancel",
        path="/jobs/{job}/cancel",
        summary="Cancel a job that waits or runs",
        fields=OneJob,
        answer=JobView,
        act=_cancel,
        page=PAGE,
        then=lambda view: f"/jobs/{view.job}",
        writes=False,
    ),
)
