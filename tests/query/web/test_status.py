"""The page Status while runs are under way, after they ended, and without any."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from proponent.lake import Lake, init
from proponent.query.web.explorer import Explorer
from proponent.schema.catalog import Run, now
from proponent.schema.settings import ServeSettings
from proponent.store.runs import recorded_run
from proponent.store.units import HeldUnit, add_units, remove_units, take_unit

from .conftest import Served, client_of

BEGUN_S = 20
"""So long ago the runs of these tests began."""


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with init(tmp_path / "lake") as made:
        yield made


@pytest.fixture
def look(lake: Lake) -> Iterator[Any]:
    made = Explorer(lake=lake.store, settings=ServeSettings(rate=1e4), asker=lake, status=lake.status)
    yield client_of(made)
    made.close()


def begin(lake: Lake, kind: str, **settings: object) -> Any:
    """Begin a run; what it returns is a with block, as a command holds it."""
    return recorded_run(lake.store.catalog, kind, settings)


def age(lake: Lake, run: Run) -> None:
    with lake.store.catalog.write() as session:
        mine = update(Run).where(Run.run_id == run.run_id)
        session.execute(mine.values(started_at=now() - timedelta(seconds=BEGUN_S)))


def take(lake: Lake, run: Run) -> HeldUnit:
    unit = take_unit(lake.store.catalog, run.run_id)
    assert unit is not None
    return unit


def encoded(n: int, tokens: int) -> dict[str, Any]:
    counts = {"encoded": n, "too_long": 0, "truncated": 0, "without_loss": 0, "not_finite": 0, "tokens": tokens}
    return {"counts": counts, "batch": None, "fidelity": None}


def test_nothing_runs(look: Any) -> None:
    told, page = look.get("/api/status").json(), look.get("/status").text
    assert (told["at_work"], told["live"]) == ([], False)
    assert "0 runs under way" in page
    assert "http-equiv" not in page
    assert "data-live" not in page


def test_an_encoding_under_way(lake: Lake, look: Any) -> None:
    with begin(lake, "encode", encoder="<e>") as run:
        add_units(lake.store.catalog, run.run_id, [{"start": at, "stop": at + 100} for at in range(0, 400, 100)])
        age(lake, run)
        take(lake, run).finish(encoded(100, 5000))
        second = take(lake, run)
        second.report({"texts": 60})
        [seen] = look.get("/api/status").json()["at_work"]
        assert (seen["kind"], seen["subject"], seen["units_done"], seen["units_total"]) == ("encode", "<e>", 1, 4)
        done = seen["throughput"]
        assert (done["what"], done["n"], seen["total"], done["tokens"]) == ("texts", 160, 400, 5000)
        assert done["per_second"] == pytest.approx(160 / seen["seconds"])
        assert done["tokens_per_second"] == pytest.approx(5000 / seen["seconds"])
        assert seen["seconds"] >= BEGUN_S
        assert seen["left_s"] == pytest.approx(seen["seconds"] * 240 / 160)
        [workers] = seen["workers"].values()
        assert workers["n"] == 1
        page = look.get("/status").text
        for part in ("Encode of <bdi>&lt;e&gt;</bdi>", "1 of 4", "160 of 400", "texts a second", 'content="5"'):
            assert part in page, part
        second.finish(encoded(100, 5000))
        [seen] = look.get("/api/status").json()["at_work"]
        assert (seen["units_done"], seen["throughput"]["n"], seen["workers"]) == (2, 200, {}), "nobody is at it now"
        assert seen["left_s"] is None
        page = look.get("/status").text
        assert "No worker is at it" in page
        assert "http-equiv" not in page, "what does not move is not loaded again"
        remove_units(lake.store.catalog, [run.run_id])


def test_an_ingest_under_way_and_two_at_once(lake: Lake, look: Any) -> None:
    with begin(lake, "ingest", corpus="c") as ingest, begin(lake, "encode", encoder="e") as encode:
        for run, size in ((ingest, 2), (encode, 1)):
            add_units(lake.store.catalog, run.run_id, [{"start": n, "stop": n + 1} for n in range(size)])
            age(lake, run)
        take(lake, ingest).finish({"counts": {"read": 30, "added": 20, "unchanged": 10, "tokens": 700}, "n_bytes": 9})
        take(lake, ingest).report({"read": 5, "tokens": 40, "n_bytes": 2})
        take(lake, encode)
        told = {one["kind"]: one for one in look.get("/api/status").json()["at_work"]}
        done = told["ingest"]["throughput"]
        assert (done["what"], done["n"], done["tokens"], told["ingest"]["total"]) == ("documents", 35, 740, None)
        assert told["ingest"]["left_s"] == pytest.approx(told["ingest"]["seconds"]), "half of its units are done"
        assert told["encode"]["left_s"] is None, "nothing is done"
        assert "2 runs under way" in look.get("/status").text
        assert lake.status()["at_work"][0]["workers"].keys() == told["ingest"]["workers"].keys()
        remove_units(lake.store.catalog, [ingest.run_id, encode.run_id])


DIES = """
import sys
from pathlib import Path
from proponent.store.lake import open_store
from proponent.store.units import take_unit
lake = open_store(Path(sys.argv[1]))
assert take_unit(lake.catalog, sys.argv[2])
print("has it", flush=True)
sys.stdin.read()
"""


def test_a_worker_of_another_process_that_dies_is_no_worker(lake: Lake, look: Any) -> None:
    with begin(lake, "encode", encoder="e") as run:
        add_units(lake.store.catalog, run.run_id, [{"start": 0, "stop": 9}])
        command = [sys.executable, "-c", DIES, str(lake.store.root), run.run_id]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "has it\n"
            told = look.get("/api/status").json()
            assert [one["n"] for one in told["at_work"][0]["workers"].values()] == [1]
            assert told["live"]
            worker.kill()
        told = look.get("/api/status").json()
        assert (told["at_work"][0]["workers"], told["live"]) == ({}, False)
        remove_units(lake.store.catalog, [run.run_id])


def test_runs_that_ended_say_how_fast_they_were(lake: Lake, look: Any) -> None:
    with begin(lake, "encode", encoder="e") as run:
        age(lake, run)
        run.counts = {"encoded": 90, "too_long": 10, "without_loss": 0, "not_finite": 0, "before": 7, "tokens": 4000}
    with begin(lake, "ingest", corpus="c") as run:
        age(lake, run)
        run.counts = {"read": 50, "added": 50, "passages": 80}
    with suppress(ValueError), begin(lake, "ingest", corpus="d") as run:
        run.counts = {"read": 50}
        raise ValueError("no")
    told = look.get("/api/status").json()
    runs = {(one["command"], one["status"]): one for one in told["runs"]}
    seconds, done = (runs["encode", "done"][name] for name in ("seconds", "throughput"))
    assert (done["what"], done["n"]) == ("texts", 100)
    assert done["tokens_per_second"] == pytest.approx(4000 / seconds)
    assert (runs["ingest", "done"]["throughput"]["n"], runs["ingest", "done"]["throughput"]["tokens"]) == (50, None)
    assert runs["ingest", "failed"]["throughput"] is None
    assert runs["init", "done"]["throughput"] is None
    assert not told["live"]
    assert "documents a second" in look.get("/status").text


def test_the_page_follows_a_run_to_its_end(browse: Callable[..., Any], served: Served, web_lake: Lake) -> None:
    catalog = web_lake.store.catalog
    with begin(web_lake, "encode", encoder="factbook") as run:
        add_units(catalog, run.run_id, [{"start": 0, "stop": 10}, {"start": 10, "stop": 20}])
        first = take(web_lake, run)
        page = browse("/status")
        assert "0 of 2" in page.locator("#under-way").inner_text()
        second = take(web_lake, run)
        first.finish(encoded(10, 100))
        page.get_by_text("1 of 2").wait_for()
        second.hand_back()
        remove_units(catalog, [run.run_id])
    page.locator("#under-way:not([data-live])").wait_for(state="attached")
    assert page.locator("#told-live").text_content() == "0 runs under way"
