"""Reports in a real browser: nothing is loaded, nothing runs, everything is text, and everybody can read it.

The pictures that `make test-full` takes are in the folder that PROPONENT_ARTEFACTS names, or in pytest's own.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proponent.query.report import Beside, Group, Report, Sources, TokenShare, render_html
from proponent.query.report.folder import folder_files
from proponent.schema.settings import ReportSettings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
DECEIVING = "\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u200b\u200c\u200d\u2060\ufeff\u00ad\u0000\u001b"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium (on Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra dev)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # containers run it as root
        yield browser
        browser.close()


class Shown:
    """A page that is open, and what it tried: requests, dialogs, messages, other pages."""

    def __init__(self, page: Any, path: Path) -> None:
        self.page, self.tried, self.stopped = page, [], []
        page.on("request", lambda request: self.tried.append(request.url))
        page.on("dialog", lambda dialog: (self.tried.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda message: self.tried.append(message.text))
        page.on("popup", lambda popup: self.tried.append(popup.url))
        page.on("requestfailed", lambda request: self.stopped.append((request.url, request.failure)))
        page.goto(path.as_uri())
        self.tried.remove(path.as_uri())


@pytest.fixture
def show(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Shown]]:
    """Open a page; JavaScript is on, so that what the page forbids is forbidden by the page."""
    contexts = []

    def open_page(source: str, *, size: str = "desktop", scheme: str = "light") -> Shown:
        width, height = SIZES[size]
        viewport = {"width": width, "height": height}
        contexts.append(chromium.new_context(viewport=viewport, color_scheme=scheme, bypass_csp=False))
        path = tmp_path / f"page{len(contexts)}.html"
        path.write_text(source, "utf-8")
        return Shown(contexts[-1].new_page(), path)

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def rich_report(make_report: Any, make_query: Any, make_hit: Any) -> Report:
    """A report that has everything a report can have, once."""
    passage = "Paris is the capital of France, and has been for most of its history. " * 3
    starts = enumerate(range(0, 60, 6))
    tokens = tuple(TokenShare(start, start + 6, (-1) ** place * 0.01 * place) for place, start in starts)
    hits = tuple(
        make_hit(
            rank=rank, passage_id=f"p{rank}", score=0.5 / rank, percentile=99.9, z_score=4.2, title="Almanac",
            text=passage, before="What stood before it. " * 30, after=" What came after it. " * 30, source="Almanac",
            url="https://example.org/almanac", entities=("France", "Paris"), license="CC0", tokens=tokens,
        )
        for rank in range(1, 4)
    )  # fmt: skip
    groups = tuple(
        Group(label=f"Source {n}", n_passages=100 * n, influence=0.3 - 0.1 * n, share=0.3 - 0.1 * n, passage_share=0.1)
        for n in range(1, 6)
    )
    times = tuple(replace(group, label=str(2000 + n), place=2000 + n) for n, group in enumerate(groups))
    beside = Beside(
        sources=Sources(by_source=groups, by_time=times, span="year", n_passages=1500),
        words=(replace(hits[0], score=12.5), make_hit(rank=2, passage_id="other", score=3.5)),
    )
    query = make_query(proponents=hits, beside=beside, filter="source = 'Almanac'", notes=("Something to note.",))
    return make_report(query, settings=ReportSettings(tokens=3))


def test_hostile_text_is_only_text(show: Callable[..., Shown], hostile_report: Report) -> None:
    shown = show(render_html(hostile_report), size="phone")
    page = shown.page
    told = page.locator("body").inner_text()

    assert shown.tried == []
    assert "<script>alert(1)</script>" in told
    assert "<img src=x onerror=alert(1)>" in told
    for name in ("U+202E", "U+2066", "U+200B", "U+FEFF", "U+0000", "U+001B"):
        assert name in told
    assert not set(DECEIVING) & set(page.content())
    assert page.locator("img, iframe, object, embed, form, a[href^='javascript'], a[target]").count() == 0
    assert page.locator("script").count() == 1
    # A frame around each name of a character that cannot be seen, so that it is not taken for the text.
    assert page.locator(".ctl").first.evaluate("one => getComputedStyle(one).borderTopStyle") == "dotted"
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"][0]


def test_the_page_itself_forbids_scripts_and_loading(show: Callable[..., Shown], rich_report: Report) -> None:
    # What could only be there if escaping failed; inserted by hand, the page's policy still stops it.
    source = render_html(rich_report).replace(
        "</main>",
        "<script>document.title = 'ran'</script><img src='https://evil.example/x.png' onerror=\"document.title='ran'\">"
        "<iframe src='https://evil.example/'></iframe><link rel='stylesheet' href='https://evil.example/x.css'></main>",
    )
    shown = show(source)

    assert shown.page.title() != "ran"
    tried = {url for url in shown.tried if url.startswith("https:")}
    assert {(url, "csp") for url in tried} <= set(shown.stopped)
    assert any("Content Security Policy" in message for message in shown.tried)


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        *(("desktop", "light"), ("phone", "dark")),
        *(pytest.param(*one, marks=pytest.mark.full) for one in (("desktop", "dark"), ("phone", "light"))),
    ],
)
def test_everybody_can_read_it(show: Callable[..., Shown], rich_report: Report, size: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python (extra dev)")
    shown = show(render_html(rich_report), size=size, scheme=scheme)
    assert shown.tried == []
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    found = axe.Axe().run(shown.page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.full
def test_a_comparison_and_an_index_can_be_read_by_everybody(
    show: Callable[..., Shown], rich_report: Report, hostile_report: Report
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    query = rich_report.queries[0]
    other = replace(query, trace_id="t2", method="graddot", proponents=tuple(reversed(query.proponents)))
    compared = replace(rich_report, queries=(query, other), settings=ReportSettings(compare=True))
    several = replace(rich_report, queries=(query, other))
    segment = replace(query, trace_id="t3", prompt=query.prompt + query.target, target=" It lies on a river. " * 20)
    answer = replace(rich_report, queries=(query, segment))
    pages = {
        "comparison": render_html(compared),
        "answer": render_html(answer),
        "answer's index": folder_files(answer)["index.html"],
        "hostile": render_html(hostile_report),
        "index": folder_files(several)["index.html"],
        "page": folder_files(several)["002.html"],
    }
    for name, source in pages.items():
        for scheme in ("light", "dark"):
            shown = show(source, size="phone", scheme=scheme)
            found = Axe().run(shown.page)
            assert found.violations_count == 0, f"{name}, {scheme}: {found.generate_report()}"
            assert shown.page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"][0], name


@pytest.mark.full
def test_facets_narrow_down_without_javascript(
    chromium: Any, tmp_path: Path, make_report: Any, make_query: Any, make_hit: Any
) -> None:
    queries = [
        make_query(
            target=f" city {n}", method=("trackstar", "graddot")[n % 2], proponents=(make_hit(source=f"s{n % 5}"),)
        )
        for n in range(20)
    ]
    (tmp_path / "index.html").write_text(folder_files(make_report(*queries))["index.html"], "utf-8")
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "index.html").as_uri())

    def visible() -> int:
        return sum(one.is_visible() for one in page.locator(".index li").all())

    assert visible() == 20
    page.get_by_label("graddot").check()
    assert visible() == 10
    page.get_by_label("s3").check()
    assert visible() == 2
    page.get_by_label("all").first.check()
    assert visible() == 4
    context.close()


@pytest.mark.full
def test_the_keyboard_reaches_everything(show: Callable[..., Shown], rich_report: Report) -> None:
    page = show(render_html(rich_report)).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.tagName"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none" or reached[-1] == "BODY"
    assert {"A", "SUMMARY"} <= set(reached)


@pytest.mark.full
def test_it_prints_to_clean_pages(chromium: Any, tmp_path: Path, demo_folder: Path) -> None:
    """By the command of docs/report.md: the text is there, and no page is nearly empty."""
    import subprocess

    command = [
        *(
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--no-pdf-header-footer",
            f"--print-to-pdf={tmp_path / 'report.pdf'}",
        ),
        (demo_folder / "report.html").as_uri(),
    ]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=120)
    data = (tmp_path / "report.pdf").read_bytes()
    assert data.startswith(b"%PDF-")
    assert 5 <= data.count(b"/Type /Page\n") + data.count(b"/Type/Page/") <= 40


@pytest.mark.full
def test_pictures_are_taken(show: Callable[..., Shown], demo_folder: Path, rich_report: Report, tmp_path: Path) -> None:
    folder = Path(os.environ.get("PROPONENT_ARTEFACTS") or tmp_path / "artefacts")
    folder.mkdir(parents=True, exist_ok=True)
    sources = {"demo": (demo_folder / "report.html").read_text("utf-8"), "rich": render_html(rich_report)}
    for name, source in sources.items():
        for size in SIZES:
            for scheme in ("light", "dark"):
                page = show(source, size=size, scheme=scheme).page
                page.screenshot(path=folder / f"{name}-{size}-{scheme}.png", full_page=True)
        page = show(source).page
        page.pdf(path=folder / f"{name}-print.pdf", prefer_css_page_size=True)
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 794, "height": 1123})  # A4 at 96 dots an inch
        page.screenshot(path=folder / f"{name}-print.png", full_page=True)
    assert len(list(folder.iterdir())) == 12
