"""What an explorer keeps, and what it stops."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from proponent.query.web.explorer import PAGE_SQL, Explorer

from .conftest import client_of

_ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range % 7 = b.range % 11"


def test_what_is_remembered_of_traces_is_bounded(
    make_explorer: Callable[..., Explorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proponent.query.web.explorer.MOST_REMEMBERED", 2)
    explorer = make_explorer()
    at_first, states = explorer.state_of_trace("a"), []
    for passage in ("1", "2", "1"):
        explorer.remember(("tokens", "a", passage), passage)
        states.append(explorer.state_of_trace("a"))
    assert len({at_first, *states}) == 4, "a page that was made before each of them is another"
    for trace in "bcdefg":
        explorer.remember(("tokens", trace, "1"), "one")
    assert len(explorer._marks) == len(explorer._remembered) == 2
    assert explorer.state_of_trace("a") == at_first
    explorer.remember(("tokens", "a", "3"), "3")
    assert explorer.state_of_trace("a") not in {at_first, *states}


def test_a_page_that_is_given_up_is_stopped(
    make_explorer: Callable[..., Explorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proponent.query.web.pages.sql.PAGE_SQL", replace(PAGE_SQL, time_limit_s=600.0))
    explorer = make_explorer(page_time_s=1.0)
    answer = client_of(explorer).get("/api/sql", params={"query": _ENDLESS, "run": "true"})
    assert answer.status_code == 503
    assert "took too long" in answer.json()["error"]
    readers = explorer.statements
    with readers._lock:
        assert readers._lock.wait_for(lambda: readers._n_out == 0, timeout=120), "its statement runs on"


@pytest.mark.parametrize("path", ["/", "/api/status"])
def test_a_body_that_is_too_long_is_refused_where_none_is_read(
    make_explorer: Callable[..., Explorer], path: str
) -> None:
    def pieces() -> Any:
        for _ in range(8):
            yield b"x" * 1000

    answer = client_of(make_explorer(max_body=2000)).request("GET", path, content=pieces())
    assert answer.status_code == 413, answer.text
