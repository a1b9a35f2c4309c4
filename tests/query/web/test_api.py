"""The API does what its description says, whatever is sent."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import positive_data_acceptance

from proponent.query.web.app import make_app
from proponent.query.web.explorer import Explorer
from proponent.query.web.page import NoParameters, Page
from proponent.query.web.pages import ACTIONS, PAGES

HOST = "127.0.0.1:8321"
REFUSED = [400, 403, 404, 405, 413, 414, 415, 422]
CONFIG = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REFUSED}}})


def endless(app: Any) -> Any:
    """Return an application that goes on when its server ends, which schemathesis lets it do after every request."""

    async def served(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for moment in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{moment}.complete"})

    return served


@pytest.fixture(scope="module")
def api(make_explorer: Callable[..., Explorer]) -> Iterator[Any]:
    """The description, as it is sent, of an explorer that stores nothing."""
    explorer = make_explorer(read_only=True, waiting=10_000)
    yield schemathesis.openapi.from_asgi(
        "/api/openapi.json", endless(make_app(explorer)), headers={"Host": HOST}, config=CONFIG
    )
    for job in explorer.jobs.active():
        explorer.jobs.cancel(job.job)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        (one.name, mode)
        for one in (*PAGES, *ACTIONS)
        for mode in GenerationMode
        # Where nothing is taken, nothing wrong can be sent.
        if mode is GenerationMode.POSITIVE or not (isinstance(one, Page) and one.params is NoParameters)
    ],
)
def test_the_api_is_what_it_says(api: Any, name: str, mode: GenerationMode) -> None:
    operation = api.find_operation_by_id(name)

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=10, suppress_health_check=list(HealthCheck))
    def holds(case: Any) -> None:
        # What fits a type may still be no SQL, no filter and no page that there is.
        case.call_and_validate(headers={"Host": HOST}, excluded_checks=[positive_data_acceptance])

    holds()


def test_everything_is_described(ask: Any) -> None:
    described = ask.get("/api/openapi.json").json()
    assert described["openapi"] == "3.1.0"
    assert {f"/api{page.path}" for page in PAGES} <= set(described["paths"])
    for action in ACTIONS:
        assert "post" in described["paths"][f"/api{action.path}"]
    told = described["paths"]["/api/traces/{trace}"]["get"]["parameters"]
    assert any({"name": "trace", "in": "path", "required": True}.items() <= one.items() for one in told)
    for name, schema in described["components"]["schemas"].items():
        assert schema.get("description", "x").strip(), name
