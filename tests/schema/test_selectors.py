"""A column is a field, a constant or a template of fields; a template runs nothing."""

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proponent.schema.errors import SettingsError
from proponent.schema.selectors import parse_selector

ROW: dict[str, Any] = {
    "title": "Peru",
    "year": 2015,
    "a.b": "whole",
    "a": {"b": "nested", "c": {"d": None, "e": [{"f": "deep"}, 7]}},
    "empty": "",
    "none": None,
}


@pytest.mark.parametrize(
    ("spec", "value", "names"),
    [
        ("title", "Peru", ("title",)),
        ("year", 2015, ("year",)),
        ("a.b", "whole", ("a.b",)),
        ("a.c.e.0.f", "deep", ("a.c.e.0.f",)),
        ("a.c.e.1", 7, ("a.c.e.1",)),
        ("a.c.e.2", None, ("a.c.e.2",)),
        ("a.c.e.-1", None, ("a.c.e.-1",)),
        ("a.c.d.x", None, ("a.c.d.x",)),
        ("title.upper", None, ("title.upper",)),
        ("missing", None, ("missing",)),
        ("=wikipedia", "wikipedia", ()),
        ("=", "", ()),
        ("={title}", "{title}", ()),
        ("{title} ({year})", "Peru (2015)", ("title", "year")),
        ("{a.c.e.0.f}/{{{year}}}", "deep/{2015}", ("a.c.e.0.f", "year")),
        ("{title}{missing}", None, ("title", "missing")),
        ("{title}{empty}", None, ("title", "empty")),
        ("{title.__class__}", None, ("title.__class__",)),
    ],
)
def test_a_value_is_picked_from_a_row(spec: str, value: Any, names: tuple[str, ...]) -> None:
    selector = parse_selector(spec, option="title")
    assert (selector.value(ROW), selector.names) == (value, names)
    assert pickle.loads(pickle.dumps(selector)) == selector


@pytest.mark.parametrize("spec", ["{", "}", "{}", "{title", "{0!r}", "{title:>10}", "{a[b]}", "{a{b}}", "x {title!s}"])
def test_a_template_with_more_than_names_is_refused_and_named(spec: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_selector(spec, option="title")
    assert str(caught.value).startswith(f"--title {spec}: ")


@given(st.text())
def test_whatever_is_written_is_a_selector_or_a_named_mistake(spec: str) -> None:
    try:
        parse_selector(spec, option="id").value(ROW)
    except SettingsError:
        return
