"""An explorer of the demonstration's lake, asked in this process or through a socket by a real browser."""

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from proponent.lake import Lake
from proponent.lake import open as open_lake
from proponent.query.web.explorer import Explorer
from proponent.schema.settings import ServeSettings

ADDRESS = "http://127.0.0.1:8321"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def web_lake(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """The demonstration's lake, copied, so that questions can be asked."""
    copied = tmp_path_factory.mktemp("web") / "lake"
    shutil.copytree(demo_folder / "lake", copied)
    with open_lake(copied) as lake:
        yield lake


@pytest.fixture(scope="session")
def make_explorer(web_lake: Lake) -> Iterator[Callable[..., Explorer]]:
    """Make an explorer of it with settings; a wide rate, since tests ask from one address."""
    made = []

    def make(**settings: Any) -> Explorer:
        chosen = ServeSettings(**{"rate": 10_000.0} | settings)
        made.append(Explorer(lake=web_lake.store, settings=chosen, asker=web_lake, status=web_lake.status))
        return made[-1]

    yield make
    for explorer in made:
        explorer.close()


@pytest.fixture(scope="session")
def explorer(make_explorer: Callable[..., Explorer]) -> Explorer:
    """One that takes questions."""
    return make_explorer()


@pytest.fixture(scope="session")
def ask(explorer: Explorer) -> Any:
    """What sends requests to it, without a socket."""
    return client_of(explorer)


def client_of(explorer: Explorer, **more: Any) -> Any:
    """Return what sends requests to an explorer and follows no redirect; `more` are arguments of TestClient."""
    from starlette.testclient import TestClient

    from proponent.query.web.app import make_app

    return TestClient(make_app(explorer), base_url=ADDRESS, follow_redirects=False, **more)


def job_of(explorer: Explorer, answer: Any) -> Any:
    """Return the job that an answer is, once it has ended."""
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["job"]
    assert explorer.jobs._find(job_id).ended.wait(60)
    return explorer.jobs.view(job_id)


class Served(NamedTuple):
    """An explorer that listens."""

    address: str
    explorer: Explorer


@pytest.fixture(scope="session")
def served(make_explorer: Callable[..., Explorer]) -> Iterator[Served]:
    """An explorer that listens on a socket, for browsers."""
    with listening_for(make_explorer()) as served:
        yield served


@contextmanager
def listening_for(explorer: Explorer) -> Iterator[Served]:
    """Let an explorer listen on a socket."""
    import uvicorn

    from proponent.query.web.app import make_app

    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(make_app(explorer), log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", explorer)
    explorer.closing.set()
    server.should_exit = True
    thread.join(10)
    listening.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium (on Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra dev)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # containers run it as root
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Any, served: Served) -> Iterator[Callable[..., Any]]:
    """Open pages of the explorer; what a page asks of other hosts or says in the console fails the test."""
    contexts, wrong, expected = [], list[str](), list[str]()

    def open_page(path: str = "/", *, width: int = 1280, height: int = 900, **context: Any) -> Any:
        contexts.append(chromium.new_context(viewport={"width": width, "height": height}, **context))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda one: one.url.startswith((served.address, "data:")) or wrong.append(one.url))
        page.on("console", lambda one: one.type in {"error", "warning"} and wrong.append(one.text))
        page.on("response", lambda one: one.status in {404, 422} and expected.append(one.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(served.address + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    # A page that is not there says so in the console, too, and one with a mistake in its form.
    assert [message for message in wrong if not (expected and ("404" in message or "422" in message))] == []
