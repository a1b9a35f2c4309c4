"""A phone: what is done with a mouse elsewhere is done with a finger here."""

from collections.abc import Callable
from typing import Any

PHONE = {"width": 390, "height": 844, "has_touch": True, "is_mobile": True}


def place_of(page: Any, text: str) -> tuple[float, float]:
    """Return where the first word of the field to select in is drawn, measured by a copy of its text."""
    x, y = page.evaluate(
        """(text) => {
          const field = document.getElementById("selectable");
          const style = getComputedStyle(field);
          const context = document.createElement("canvas").getContext("2d");
          context.font = style.font;
          const before = field.value.slice(0, field.value.indexOf(text));
          const box = field.getBoundingClientRect();
          return [
            box.left + parseFloat(style.paddingLeft) + context.measureText(before).width
              + context.measureText(text).width / 2,
            box.top + parseFloat(style.paddingTop) + parseFloat(style.lineHeight) / 2,
          ];
        }""",
        text,
    )
    return float(x), float(y)


def test_the_target_is_chosen_with_a_finger(browse: Callable[..., Any]) -> None:
    page = browse("/", **PHONE)
    prompt, target = (page.get_by_label(name, exact=True) for name in ("Prompt", "Target"))
    prompt.fill("Peru. Capital: Lima")
    page.get_by_role("button", name="Make the selection the target").tap()
    page.get_by_text("tap on its first word.").wait_for()
    page.locator("#selectable").scroll_into_view_if_needed()
    page.touchscreen.tap(*place_of(page, "Lima"))
    page.get_by_role("button", name="Make the selection the target").tap()
    assert (prompt.input_value(), target.input_value()) == ("Peru. Capital:", " Lima")


def test_what_a_phones_handles_select_is_the_target(browse: Callable[..., Any]) -> None:
    page = browse("/", **PHONE)
    prompt, target = (page.get_by_label(name, exact=True) for name in ("Prompt", "Target"))
    prompt.fill("Peru. Capital: Lima, and more")
    page.locator("#selectable").tap()
    page.evaluate("selectable.setSelectionRange(14, 19)")  # a long press selects on phones alone
    page.get_by_role("button", name="Make the selection the target").tap()
    assert (prompt.input_value(), target.input_value()) == ("Peru. Capital:", " Lima")


def test_cells_and_tables_are_copied_with_a_finger(browse: Callable[..., Any]) -> None:
    page = browse("/sql", **PHONE, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_label("One SELECT of DuckDB over the lake").fill("SELECT 'a b' AS word, 7 AS n")
    page.get_by_role("button", name="Run").tap()
    page.get_by_role("heading", name="1 row").wait_for()
    copied = "navigator.clipboard.readText()"
    page.locator("#result tbody td").nth(0).tap()
    button = page.get_by_role("button", name="Copy the cell of word")
    box = button.bounding_box()
    assert min(box["width"], box["height"]) >= 24, "large enough for a finger"
    button.tap()
    page.get_by_text("The cell is copied.").wait_for()
    assert page.evaluate(copied) == "a b"
    page.locator("#result tbody td").nth(1).tap()
    page.get_by_role("button", name="Copy the cell of n", exact=True).tap()
    page.wait_for_function("navigator.clipboard.readText().then((text) => text === '7')")
    page.get_by_role("button", name="Copy the table").tap()
    page.get_by_text("The table is copied.").wait_for()
    assert page.evaluate(copied) == "word\tn\na b\t7"
