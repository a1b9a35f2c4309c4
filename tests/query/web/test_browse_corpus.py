"""Corpus, queries and evaluations in a real browser."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Served, client_of

PATHS = ("/documents?text=Lima+capital", "/queries?sort=opponent", "{document}", "{query}", "/evaluations")


@pytest.fixture
def paths(served: Served) -> tuple[str, ...]:
    """Addresses of the pages, with a document and a query that traces are of."""
    ask = client_of(served.explorer)
    document = ask.get("/api/documents?sort=listed").json()["documents"][0]["doc_id"]
    query = ask.get("/api/queries").json()["queries"][0]["query_id"]
    return tuple(one.format(document=f"/documents/{document}", query=f"/queries/{query}") for one in PATHS)


@pytest.mark.full
def test_somebody_narrows_the_corpus_and_asks_of_one_document(browse: Callable[..., Any], served: Served) -> None:
    page = browse("/documents")
    page.get_by_label("Words of the text").fill("Lima capital")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**text=Lima*")
    page.get_by_role("link", name="Government", exact=True).click()
    page.wait_for_url("**source=Government*")
    assert page.get_by_label("Words of the text").input_value() == "Lima capital"
    shared = browse(page.url.removeprefix(served.address))
    titles = ".documents > li > a"
    assert shared.locator(titles).all_inner_texts() == page.locator(titles).all_inner_texts()
    page.locator(titles).first.click()
    assert page.locator("h1").inner_text() == "Peru: Capital"
    assert page.locator(".of-document > li:target").count() == 1
    page.get_by_role("link", name="Ask with this document only").click()
    assert page.get_by_label("Filter before the search").input_value().startswith("doc_id = '")


@pytest.mark.full
def test_a_wrong_filter_is_told_without_scripts(browse: Callable[..., Any]) -> None:
    page = browse("/documents", java_script_enabled=False)
    page.get_by_label("Filter").fill("entity('Peru')")
    page.get_by_role("button", name="Search").click()
    assert "10 documents" in page.locator("#found").inner_text()
    page.get_by_role("link", name="Show SQL").or_(page.locator("summary", has_text="Show SQL")).first.click()
    page.get_by_role("link", name="Open it in the SQL page").click()
    page.get_by_role("button", name="Run").click()
    assert "10 rows" in page.locator("#rows").inner_text()


@pytest.mark.full
def test_somebody_looks_through_the_queries(browse: Callable[..., Any]) -> None:
    page = browse("/queries")
    page.get_by_role("link", name="Most surprising opponent").click()
    page.wait_for_url("**sort=opponent*")
    page.get_by_role("link", name="A random one").click()
    page.wait_for_url("**/traces/*")
    page.go_back()
    page.locator(".question-link").first.click()
    page.wait_for_url("**/traces/*")
    page.go_back()
    page.get_by_role("link", name="side by side").first.click()
    assert page.locator(".trace-column").count() >= 1


@pytest.mark.full
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark"), (1400, "dark"), (390, "light")])
def test_everybody_can_read_them(
    browse: Callable[..., Any], served: Served, paths: tuple[str, ...], width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python (extra dev)")
    page = browse("/", width=width, color_scheme=scheme, bypass_csp=True)
    for path in paths:
        page.goto(served.address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        found = axe.Axe().run(page)
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"


@pytest.mark.full
def test_pictures_of_them_are_taken(
    browse: Callable[..., Any], served: Served, paths: tuple[str, ...], tmp_path: Path
) -> None:
    folder = Path(os.environ.get("PROPONENT_ARTEFACTS") or tmp_path / "artefacts")
    folder.mkdir(parents=True, exist_ok=True)
    for scheme, width in (("light", 1400), ("dark", 390)):
        page = browse("/", width=width, color_scheme=scheme)
        for path, name in zip(paths, ("corpus", "queries", "document", "query", "evaluations"), strict=True):
            page.goto(served.address + path)
            page.screenshot(path=folder / f"explorer-{name}-{width}-{scheme}.png")
