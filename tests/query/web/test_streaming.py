"""Results that come while they are still being found: the best hits so far, the result, and then its whole sources."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from proponent.lake import Lake
from proponent.query.web.explorer import Explorer
from proponent.schema.settings import ServeSettings

from .conftest import Served, client_of, listening_for


class Held:
    """A lake that is asked, and holds still after the first texts were scored, and before whole sources are weighed."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self.scored, self.stored = threading.Event(), threading.Event()

    def trace_all(self, questions: Any, *, so_far: Any, **settings: Any) -> list[str]:
        def held(now: Any) -> None:
            for _ in range(2):  # the first word only begins to count time
                so_far(now)
            assert self.scored.wait(60)

        return self._lake.trace_all(questions, so_far=held, **settings)


@pytest.fixture
def held(web_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Held, Served]]:
    from proponent.query.web.pages import home

    asker = Held(web_lake)
    weigh = home.try_to_weigh

    def weigh_later(explorer: Explorer, trace_id: str) -> None:
        assert asker.stored.wait(60)
        weigh(explorer, trace_id)

    monkeypatch.setattr("proponent.query.web.so_far.EVERY_S", 0.0)
    monkeypatch.setattr(home, "try_to_weigh", weigh_later)
    explorer = Explorer(
        lake=web_lake.store,
        settings=ServeSettings(rate=10_000.0),
        asker=asker,  # type: ignore[arg-type]  # what it is asked here
        status=web_lake.status,
    )
    with listening_for(explorer) as served:
        yield asker, served
        asker.scored.set()
        asker.stored.set()
    explorer.close()


def asked(served: Served, target: str) -> str:
    question = {"prompt": "Chile. Capital:", "target": target, "encoder": "factbook"}
    return str(client_of(served.explorer).post("/api/traces", json=question).json()["job"])


def best_of(served: Served, job: str) -> Any:
    """Return the job with its best hits so far, once there are some."""
    client = client_of(served.explorer)
    while True:
        told = client.get(f"/api/jobs/{job}").json()
        if told["best"] or told["state"] not in {"waiting", "running"}:
            return told


def test_the_best_so_far_come_with_the_job(held: tuple[Held, Served]) -> None:
    asker, served = held
    job = asked(served, " Santiago")
    told = best_of(served, job)
    assert (told["state"], told["url"]) == ("running", None)
    assert {one["side"] for one in told["best"]} == {"proponent", "opponent"}
    assert [one["rank"] for one in told["best"] if one["side"] == "proponent"] == [1, 2, 3, 4, 5]
    for path in ("/", "/status"):  # which list what is being answered
        assert "Chile. Capital:" in client_of(served.explorer).get(path).text
    asker.scored.set()
    while (now := served.explorer.jobs.view(job)).url is None:
        assert now.state == "running"
    client = client_of(served.explorer)
    view = client.get(f"/api{now.url}").json()
    assert view["weighing"]["job"] == job, "the result can be looked at while whole sources are added up"
    assert view["sources"] is None
    assert not view["can_weigh"]
    assert "being added up" in client.get(now.url).text
    asker.stored.set()
    assert served.explorer.jobs._find(job).ended.wait(60)
    assert client.get(f"/api{now.url}").json()["sources"] is not None
    page = client.get(now.url).text
    assert "being added up" not in page
    assert view["query"]["proponents"][0]["score"] >= told["best"][0]["score"], "what came later can only be better"


@pytest.mark.parametrize("scripts", [True, False])
def test_cards_stream_in(held: tuple[Held, Served], chromium: Any, scripts: bool) -> None:
    asker, served = held
    context = chromium.new_context(java_script_enabled=scripts)
    page = context.new_page()
    page.goto(f"{served.address}/?prompt=Chile.+Capital:&target=+Concepci%C3%B3n{scripts}&encoder=factbook")
    page.get_by_role("button", name="Trace").click()
    page.wait_for_url("**/jobs/*")
    page.get_by_role("heading", name="Best so far").wait_for()
    assert page.locator("#so-far .towards .hit").count() == 5
    assert page.locator("#so-far .away .hit").count() == 5
    asker.scored.set()
    page.wait_for_url("**/traces/*")
    assert page.locator(".towards .hit").count() == 20
    page.get_by_text("is being added up").wait_for()
    asker.stored.set()
    if not scripts:
        [job] = served.explorer.jobs.active() or [None]
        assert job is None or served.explorer.jobs._find(job.job).ended.wait(60)
        page.get_by_role("link", name="Look again").click()
    page.locator("#shares table").first.wait_for()
    assert not page.get_by_text("is being added up").is_visible()
    context.close()
