"""Pages as HTML: the templates of `templates/`, with the filters, words and cards of reports.

Notable: safe by default, as reports are: whatever a template prints is escaped, and characters that cannot be seen are
shown. `report/NAME` is a template of reports, so that a hit's card is one and the same in both.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, Final
from urllib.parse import quote, urlencode

from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader
from markupsafe import Markup, escape

from proponent.query.report.content import TracedQuery
from proponent.query.report.filling import html_environment
from proponent.query.report.numbers import MINUS, duration
from proponent.query.report.render import QueryView, view
from proponent.schema.settings import METHODS

from . import assets, plots
from .histogram import histogram

SUFFIX: Final = ".html.j2"
_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB")


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template by its name."""
    return _environment().get_template(template).render(values)


def prepare(template: str) -> None:
    """Read a template, which takes some hundredths of a second."""
    _environment().get_template(template)


def url(path: str, query: Mapping[str, Any] | None = None, /, **more: Any) -> str:
    """Return the address of a path with a query string, without what is empty; lists give a field several times."""
    pairs: list[tuple[str, str]] = []
    for name, value in {**(query or {}), **more}.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is not None and one != "" and one is not False:
                pairs.append((name, "true" if one is True else str(one)))
    asked = urlencode(pairs, quote_via=quote, errors="replace")
    return f"{path}?{asked}" if asked else path


def size(number: int) -> str:
    """Write a number of bytes."""
    shown, unit = float(number), 0
    while shown >= 1000 and unit < len(_UNITS) - 1:
        shown, unit = shown / 1000, unit + 1
    return f"{shown:,.0f} {_UNITS[unit]}" if unit == 0 or shown >= 100 else f"{shown:.1f} {_UNITS[unit]}"


def rate(per_second: float) -> str:
    """Write how many a second, with at least two digits that count."""
    digits = 0 if per_second >= 10 else 1 if per_second >= 1 else 2
    return f"{per_second:,.{digits}f}"


def z_score(value: float) -> str:
    """Write by how many standard deviations a score is above random passages, with its sign."""
    return f"{value:+.1f}".replace("-", MINUS)


def untouched(value: str) -> Markup:
    """Write a text into an attribute as it is, for scripts: what cannot be seen is not shown, but kept."""
    return escape(str(value)).replace("\r", Markup("&#13;"))


def _view(query: TracedQuery, strongest: float | None = None) -> QueryView:
    """Return what the templates of reports need of a trace."""
    return view(1, query, scale=strongest)


def _time(moment: datetime) -> Markup:
    return Markup('<time datetime="{}">{}</time>').format(
        moment.isoformat(timespec="seconds"), moment.strftime("%Y-%m-%d %H:%M UTC")
    )


@cache
def _environment() -> Environment:
    own = PackageLoader("proponent.query.web", "templates")
    of_reports = PrefixLoader({"report": PackageLoader("proponent.query.report", "templates")})
    environment = html_environment(ChoiceLoader([own, of_reports]))
    environment.filters |= {"z": z_score, "size": size, "moment": _time, "pair": lambda value: (value, value)}
    environment.filters |= {"duration": duration, "rate": rate, "untouched": untouched}
    environment.globals |= {"url": url, "static": assets.address, "view_of": _view}
    environment.globals |= {"histogram": histogram, "draw": plots.draw}
    environment.globals |= {"numeric": plots.is_number, "EXPLAINED": METHODS}
    return environment
