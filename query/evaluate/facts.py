"""Facts: what the model is asked, what it should say, and which passages state that.

A fact is a row of JSON Lines, Parquet or another format of rows; `docs/evaluate.md` has the fields.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from json import dumps
from typing import Any, Final

from proponent.query.questions import Question
from proponent.schema.errors import InputError
from proponent.schema.ids import content_id

_TEXTS: Final = ("prompt", "target", "relation", "subject", "object")
_LISTS: Final = ("aliases", "subject_aliases", "passage_ids", "doc_keys")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One fact."""

    id: str
    prompt: str
    target: str
    aliases: tuple[str, ...] = ()
    """Other names of the object."""
    relation: str | None = None
    subject: str | None = None
    """The entity that the prompt asks about."""
    subject_aliases: tuple[str, ...] = ()
    object: str | None = None
    """The entity that the target names; by default the target without the spaces around it."""
    passage_ids: tuple[str, ...] | None = None
    """Passages that state the fact; None where nobody said."""
    doc_keys: tuple[str, ...] | None = None
    """Documents of which every passage states it, by the corpus's own ids."""
    origin: str = ""

    @property
    def has_gold(self) -> bool:
        """Whether anybody said which passages state the fact."""
        return bool(self.passage_ids or self.doc_keys)

    @property
    def subject_names(self) -> tuple[str, ...]:
        """What the subject is called; empty when the fact does not say."""
        return (self.subject, *self.subject_aliases) if self.subject else ()

    @property
    def object_names(self) -> tuple[str, ...]:
        """What the object is called."""
        return (self.object or self.target.strip(), *self.aliases)

    @property
    def question(self) -> Question:
        """The question that is traced."""
        return Question(self.prompt, self.target, origin=self.origin)


def read_facts(rows: Iterable[Mapping[str, Any]], *, origin: str = "facts") -> list[Fact]:
    """Check the rows of a file of facts. Raises InputError, which names the row, for one that is no fact."""
    facts = [_fact(fields, number, f"{origin}:{number}") for number, fields in enumerate(rows, start=1)]
    if not facts:
        raise InputError(f"{origin} has no facts; write one JSON object a line, with prompt and target")
    ids = [fact.id for fact in facts]
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise InputError(f"{origin} has the id {twice!r} twice; give each fact one of its own")
    return facts


def _fact(fields: Mapping[str, Any], number: int, origin: str) -> Fact:
    given = {name: value for name, value in fields.items() if value is not None}
    for name in _TEXTS:
        _require(isinstance(given.get(name, ""), str), f"{origin}: `{name}` must be text")
    for name in _LISTS:
        if name in given:
            given[name] = _texts(given[name], f"{origin}: `{name}`")
    _require(given.get("prompt") is not None, f"{origin}: a fact needs `prompt`")
    _require(given.get("target", "").strip(), f"{origin}: a fact needs `target`, the text that the model should say")
    _require(isinstance(given.get("id", ""), str | int), f"{origin}: `id` must be text or a whole number")
    known = {name: given[name] for name in (*_TEXTS, *_LISTS) if name in given}
    return Fact(id=str(given.get("id", number)), origin=origin, **known)


def _texts(value: Any, what: str) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    sound = isinstance(values, list | tuple) and all(isinstance(one, str) and one.strip() for one in values)
    _require(sound, f"{what} must be a text, or a list of texts")
    return tuple(values)


def _require(condition: Any, message: str) -> None:
    if not condition:
        raise InputError(message)


def facts_hash(facts: Sequence[Fact]) -> str:
    """Return a hash of all that the facts say, in their order."""
    said = ({name: value for name, value in asdict(fact).items() if name != "origin"} for fact in facts)
    return content_id("facts", *(dumps(one, sort_keys=True) for one in said))
