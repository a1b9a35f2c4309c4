"""The explorer in a real browser: people ask, wait, look, go back, without a mouse, and without scripts."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Served, client_of, job_of

SQL_ROWS = "/sql?run=true&query=SELECT+side,rank,avg(score)+AS+mean+FROM+hits+GROUP+BY+ALL+ORDER+BY+ALL"
PATHS = ("/", "/sql", SQL_ROWS, "/compare", "/status", "/traces/last")


@pytest.fixture(scope="module")
def trace(served: Served) -> str:
    """Address of a trace of some length."""
    asked = {"prompt": "Peru. Currency:", "target": " nuevo soles", "k": 25, "encoder": "factbook"}
    return str(job_of(served.explorer, client_of(served.explorer).post("/api/traces", json=asked)).url)


def ask_in(page: Any, prompt: str, target: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Target", exact=True).fill(target)
    page.get_by_role("button", name="Trace").click()


def test_somebody_asks_and_looks_at_the_answer(browse: Callable[..., Any]) -> None:
    page = browse("/")
    ask_in(page, "Peru. Capital:", " Lima")
    page.wait_for_url("**/traces/*")
    assert page.locator(".towards .hit").first.locator("mark.target").inner_text() == "Lima"
    page.go_back()
    assert page.get_by_label("Prompt", exact=True).is_visible()
    page.go_forward()
    assert page.locator(".towards .hit").count() == 20
    page.get_by_role("link", name="Change the question").click()
    assert page.get_by_label("Target", exact=True).input_value() == " Lima"


def test_somebody_asks_without_scripts(browse: Callable[..., Any]) -> None:
    page = browse("/", java_script_enabled=False)
    ask_in(page, "Norway. Capital:", " Oslo")
    page.wait_for_url("**/traces/*")
    page.get_by_role("checkbox", name="Government").check()
    page.get_by_role("button", name="Filter this list").click()
    assert "This list is filtered" in page.locator(".chosen-now").inner_text()
    page.get_by_role("link", name="In its document").first.click()
    assert page.locator(".document-passages .this").count() == 1


def test_the_model_completes_and_the_target_is_selected(browse: Callable[..., Any]) -> None:
    page = browse("/")
    page.get_by_label("Prompt", exact=True).fill("Peru. Capital:")
    page.get_by_role("button", name="Let the model complete").click()
    page.get_by_text("The target is what the model says.").wait_for()
    assert page.get_by_label("Target", exact=True).input_value() == " Lima"
    page.evaluate("document.getElementById('selectable').setSelectionRange(5, 14)")
    page.get_by_role("button", name="Make the selection the target").click()
    assert page.get_by_label("Prompt", exact=True).input_value() == "Peru."
    assert page.get_by_label("Target", exact=True).input_value() == " Capital:"


def test_the_list_is_filtered_brushed_and_shared(browse: Callable[..., Any], served: Served, trace: str) -> None:
    page = browse(trace)
    page.get_by_role("checkbox", name="Economy").check()
    page.get_by_role("button", name="Filter this list").click()
    page.wait_for_url("**?*source=Economy*")
    assert {one.split("\n")[-1] for one in page.locator(".hit .meta li:first-child").all_inner_texts()} == {"Economy"}
    last = page.locator(".brush .bin").last.bounding_box()
    page.mouse.move(last["x"] + 1, last["y"] + 5)
    page.mouse.down()
    page.mouse.move(last["x"] + last["width"], last["y"] + 5)
    page.mouse.up()
    page.wait_for_url("**since=*")
    assert "source=Economy" in page.url
    shared = browse(page.url.removeprefix(served.address))
    ranks = ".hit .rank"
    assert shared.locator(ranks).all_inner_texts() == page.locator(ranks).all_inner_texts()
    assert shared.get_by_role("checkbox", name="Economy").is_checked()
    page.go_back()
    page.wait_for_url("**?*source=Economy*")
    assert "since=" not in page.url


def test_the_keyboard_goes_through_the_hits(browse: Callable[..., Any], trace: str) -> None:
    page = browse(trace)
    focused = "document.activeElement.getAttribute('aria-labelledby')"
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate(focused) == "hit-proponent-2"
    page.keyboard.press("l")
    assert page.evaluate(focused) == "hit-opponent-2"
    page.keyboard.press("k")
    assert page.evaluate(focused) == "hit-opponent-1"
    page.keyboard.press("Enter")
    page.locator(".away .fetched .this").wait_for()
    page.keyboard.press("?")
    assert "next hit" in page.get_by_role("dialog").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "sort"


def test_tokens_are_shaded_in_place(browse: Callable[..., Any], trace: str) -> None:
    page = browse(trace)
    item = page.locator(".towards .hits > li").first
    item.get_by_role("button", name="Shade its tokens").click()
    item.locator(".token").first.wait_for()
    assert item.get_by_role("button", name="Shade its tokens").count() == 0
    assert "Strongest tokens" in item.inner_text()


@pytest.mark.parametrize(
    ("width", "scheme", "paths"),
    [
        (1280, "light", PATHS),
        (390, "dark", ("{trace}?source=Economy&since=2000", "{passage}", "/nothing")),
        *(
            pytest.param(width, scheme, (*PATHS, "{trace}?per=5", "{passage}", "/nothing"), marks=pytest.mark.full)
            for width, scheme in ((1280, "dark"), (390, "light"), (390, "dark"), (2560, "light"))
        ),
    ],
)
def test_everybody_can_read_it(
    browse: Callable[..., Any], served: Served, trace: str, width: int, scheme: str, paths: tuple[str, ...]
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python (extra dev)")
    page = browse("/", width=width, color_scheme=scheme, bypass_csp=True)
    first = client_of(served.explorer).get(f"/api{trace}").json()["query"]["proponents"][0]["passage_id"]
    for path in paths:
        page.goto(served.address + path.format(trace=trace, passage=f"{trace}/passages/{first}"))
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        found = axe.Axe().run(page)
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"


@pytest.mark.full
def test_a_lost_connection_is_taken_up_again(browse: Callable[..., Any], served: Served) -> None:
    page = browse("/")
    ask_in(page, "Chile. Capital:", " Santiago")
    page.wait_for_url("**/jobs/*")
    page.context.set_offline(True)
    page.wait_for_timeout(1500)
    page.context.set_offline(False)
    page.wait_for_url("**/traces/*", timeout=60_000)
    assert page.locator(".towards .hit").count() == 20


@pytest.mark.full
def test_two_people_ask_at_once(browse: Callable[..., Any]) -> None:
    pages = [browse("/"), browse("/")]
    for page, (country, capital) in zip(pages, (("Kenya", " Nairobi"), ("Egypt", " Cairo")), strict=True):
        ask_in(page, f"{country}. Capital:", capital)
    for page, country in zip(pages, ("Kenya", "Egypt"), strict=True):
        page.wait_for_url("**/traces/*")
        assert country in page.locator(".towards .hit").first.inner_text()


@pytest.mark.full
def test_a_thousand_hits_are_paged_and_read_quickly(browse: Callable[..., Any], served: Served) -> None:
    asked = {"prompt": "France. Capital:", "target": " Paris", "k": 1000, "encoder": "factbook"}
    job = job_of(served.explorer, client_of(served.explorer).post("/api/traces", json=asked))
    page = browse(f"{job.url}?per=100")
    assert page.locator(".hit").count() == 200
    page.keyboard.press("n")
    page.wait_for_url("**page=2*")
    assert "101" in page.locator(".towards .rank").first.inner_text()


@pytest.mark.full
def test_a_lake_that_is_written_to_meanwhile_is_read(
    browse: Callable[..., Any], served: Served, web_lake: Any, tmp_path: Path
) -> None:
    page = browse("/status")
    before = int(page.locator(".figures dd").first.inner_text().replace(",", ""))
    rows = "".join(f'{{"id": "new{n}", "text": "A new document, number {n}."}}\n' for n in range(50))
    (tmp_path / "more.jsonl").write_text(rows, "utf-8")
    web_lake.ingest([tmp_path / "more.jsonl"], corpus="more")
    page.reload()
    assert int(page.locator(".figures dd").first.inner_text().replace(",", "")) == before + 50
    web_lake.delete("corpus = 'more'")


@pytest.mark.full
def test_pictures_are_taken(browse: Callable[..., Any], served: Served, trace: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("PROPONENT_ARTEFACTS") or tmp_path / "artefacts")
    folder.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        for width in (390, 1280, 2560):
            page = browse("/", width=width, color_scheme=scheme)
            for path in PATHS:
                page.goto(served.address + path)
                name = path.strip("/").replace("/", "-") or "ask"
                page.screenshot(path=folder / f"explorer-{name}-{width}-{scheme}.png")


@pytest.mark.full
def test_hostile_text_is_only_text(browse: Callable[..., Any], served: Served, web_lake: Any, tmp_path: Path) -> None:
    bad = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">\u202eevil\u200b"
    row = {
        "id": bad,
        "text": f"Peru. {bad}",
        "title": bad,
        "source": bad,
        "url": "javascript:alert(1)",
        "entities": [bad],
    }
    (tmp_path / "bad.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    web_lake.ingest([tmp_path / "bad.jsonl"], corpus="bad")
    web_lake.encode("factbook", encoder="factbook")
    asked = {"prompt": f"Peru. {bad[:30]}", "target": bad[30:60], "k": 5, "encoder": "factbook"}
    job = job_of(served.explorer, client_of(served.explorer).post("/api/traces", json=asked))
    passage = web_lake.sql("SELECT passage_id FROM passages JOIN documents USING (doc_id) WHERE corpus = 'bad'")
    [passage_id] = [row.passage_id for row in passage]
    for path in (job.url, f"{job.url}/passages/{passage_id}", "/", f"{job.url}?entity=%3Cscript%3E&source=%22%3E"):
        page = browse(path)
        assert page.title() != "ran", path
        assert page.locator("main img, main script, main iframe, a[href^='javascript']").count() == 0
        assert "\u202e" not in page.content()
        assert "<script>" in page.locator("main").inner_text() or "entity=" in path
    web_lake.delete("corpus = 'bad'")
