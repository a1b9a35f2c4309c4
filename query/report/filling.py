"""The templates of reports: those of `templates/`, and a user's own in place of any of them.

- Safe by default: whatever a template prints is escaped, placeholders included, unless it is `Markup` or `Markdown`
  already. Forgetting a filter shows too much escaping, never too little. In HTML attributes use `|attr`.
- A user's template `report.html.j2` stands in place of the one that is called so, and can extend that by its name
  `proponent/report.html.j2`.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PackageLoader,
    PrefixLoader,
    StrictUndefined,
    TemplateError,
    TemplateSyntaxError,
)
from markupsafe import Markup

from proponent.schema.errors import InputError
from proponent.schema.ids import content_id

from . import answers, methods, numbers, shown, text, wording
from .text import Markdown

SUFFIX: Final = ".j2"
LONG_PASSAGE: Final = 1800  # characters; longer passages scroll on a screen, and are whole on paper
ENTITIES_SHOWN: Final = 12


def fill(template: str, values: Mapping[str, Any], *, templates: Path | None = None) -> str:
    """Fill a template by its name. Raises InputError for a user's own that cannot be filled."""
    make = _markdown_environment if template.endswith(".md" + SUFFIX) else _html_environment
    try:
        return make(templates).get_template(template).render(values)
    except TemplateError as error:
        if templates is None:
            raise
        where = f"{error.name or template}, line {error.lineno}" if isinstance(error, TemplateSyntaxError) else template
        raise InputError(f"the templates in {templates} cannot be filled: {where}: {error.message}") from error


def templates_id(templates: Path | None) -> str | None:
    """Return a hash of a user's own templates, None where there are none."""
    if templates is None:
        return None
    files = sorted(path for path in templates.rglob("*" + SUFFIX) if path.is_file())
    parts = [part for path in files for part in (path.relative_to(templates).as_posix(), path.read_bytes())]
    return content_id("templates", *parts)


def require_templates(templates: Path | None) -> None:
    """Raise InputError for a folder that is not there, or has no template that a report is made of."""
    if templates is None:
        return
    known = PackageLoader(__package__, "templates").list_templates()
    found = [path.relative_to(templates).as_posix() for path in templates.rglob("*" + SUFFIX)]
    if not set(found) & set(known):
        raise InputError(f"{templates} has no template of a report; they are {', '.join(sorted(known))}")


@lru_cache(maxsize=8)
def _html_environment(templates: Path | None) -> Environment:
    return html_environment(_loader(templates))


def html_environment(loader: BaseLoader) -> Environment:
    """Return what fills HTML templates, with all that those of reports use; it can be added to."""
    environment = _environment(loader, _finish_html, autoescape=True)
    environment.filters["attr"] = text.plain  # autoescaping does the rest
    environment.globals["marked"] = shown.marked_html
    return environment


@lru_cache(maxsize=8)
def _markdown_environment(templates: Path | None) -> Environment:
    environment = _environment(_loader(templates), _finish_markdown, autoescape=False)
    environment.filters["score"] = lambda value: Markdown(numbers.score(value))  # in a table, its + starts no list
    environment.filters["share"] = lambda value: Markdown(numbers.share(value))
    environment.filters["percent"] = lambda value: Markdown(numbers.percent(value))
    environment.filters["amount"] = lambda value: Markdown(numbers.amount(value))
    environment.filters["code"] = text.markdown_code
    environment.filters["cell"] = text.markdown_cell
    environment.filters["link"] = shown.markdown_link
    environment.globals["marked"] = shown.marked_markdown
    return environment


def _loader(templates: Path | None) -> BaseLoader:
    own = PackageLoader(__package__, "templates")
    if templates is None:
        return own
    return ChoiceLoader([FileSystemLoader(templates), own, PrefixLoader({"proponent": own})])


def _environment(loader: BaseLoader, finish: Callable[[object], str], *, autoescape: bool) -> Environment:
    environment = Environment(
        loader=loader,
        # Markdown has its own escaping, in `finish`; HTML's would be wrong there.
        autoescape=autoescape,  # noqa: S701
        undefined=StrictUndefined,
        finalize=finish,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "keep_start": text.keep_start,
        "keep_end": text.keep_end,
        "safe_url": text.safe_url,
        "host": text.host_of,
        "score": numbers.score,
        "amount": numbers.amount,
        "share": numbers.share,
        "percent": numbers.percent,
        "instant": numbers.instant,
        "count": numbers.count,
    }
    environment.globals |= {
        "words": wording,
        "numbers": numbers,
        "says": methods,
        "CONDITIONED": answers.CONDITIONED,
        "told": answers.told,
        "title_of": wording.title_of,
        "context_of": shown.context_of,
        "strongest_tokens": shown.strongest_tokens,
        "LONG_PASSAGE": LONG_PASSAGE,
        "ENTITIES_SHOWN": ENTITIES_SHOWN,
    }
    return environment


def _finish_html(value: object) -> str:
    return value if isinstance(value, Markup) else text.html(_as_text(value))


def _finish_markdown(value: object) -> str:
    return value if isinstance(value, Markdown) else text.markdown(_as_text(value))


def _as_text(value: object) -> str:
    if value is None:  # would read "None" in somebody's report
        raise TypeError("a template prints a value that is missing")
    return str(value)
