"""The explorer in a real browser: people ask, wait, look, go back, without a mouse, and without scripts."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Served

PATHS = ("/", "/sql", "/status", "/traces/last")


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


def test_somebody_asks_without_scripts(browse: Callable[..., Any]) -> None:
    page = browse("/", java_script_enabled=False)
    ask_in(page, "Norway. Capital:", " Oslo")
    page.wait_for_url("**/traces/*")
    assert page.locator(".towards .hit").count() > 0


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


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        *((1280, "light"), (390, "dark")),
        *(pytest.param(*one, marks=pytest.mark.full) for one in ((1280, "dark"), (390, "light"), (2560, "light"))),
    ],
)
def test_everybody_can_read_it(browse: Callable[..., Any], served: Served, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python (extra dev)")
    page = browse("/", width=width, color_scheme=scheme, bypass_csp=True)
    for path in PATHS:
        page.goto(served.address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        found = axe.Axe().run(page)
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"


@pytest.mark.full
def test_pictures_are_taken(browse: Callable[..., Any], served: Served, tmp_path: Path) -> None:
    folder = Path(os.environ.get("PROPONENT_ARTEFACTS") or tmp_path / "artefacts")
    folder.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        for width in (390, 1280, 2560):
            page = browse("/", width=width, color_scheme=scheme)
            for path in PATHS:
                page.goto(served.address + path)
                name = path.strip("/").replace("/", "-") or "ask"
                page.screenshot(path=folder / f"explorer-{name}-{width}-{scheme}.png")
