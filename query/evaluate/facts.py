"""Facts: what the model is asked, what it should say, and which passages state that.

A fact is a row of JSON Lines, Parquet or another format of rows; `docs/evaluate.md` has the fields. Its kind says what
is asked: a fact of the world, a sum, the better of some completions, or how a text goes on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from typing import Any, Final

from proponent.query.questions import Question
from proponent.schema.errors import InputError
from proponent.schema.ids import content_id

FACT: Final = "fact"
ARITHMETIC: Final = "arithmetic"
CHOICE: Final = "choice"
GENERATION: Final = "generation"
ASKED: Final = (FACT, ARITHMETIC, CHOICE, GENERATION)
"""Kinds of what is asked."""
BUILTIN: Final = "builtin:"
"""What the name of a set that comes with the package begins with."""
_SETS: Final = Path(__file__).with_name("sets")

_TEXTS: Final = ("kind", "prompt", "target", "relation", "subject", "object")
_LISTS: Final = ("aliases", "subject_aliases", "passage_ids", "doc_keys", "choices")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One fact."""

    id: str
    prompt: str
    target: str
    """Empty only where the model is to complete the prompt, and has not yet."""
    kind: str = FACT
    choices: tuple[str, ...] = ()
    """Completions that the target is one of; empty for other kinds."""
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
    def alternatives(self) -> tuple[str, ...]:
        """The choices that are not the target."""
        return tuple(one for one in self.choices if one != self.target)

    @property
    def question(self) -> Question:
        """The question that is traced."""
        return Question(self.prompt, self.target, origin=self.origin)


def builtin_set(name: str) -> Path:
    """Return the file of a set that comes with the package, by its name with or without `builtin:`."""
    path = _SETS / f"{name.removeprefix(BUILTIN)}.jsonl"
    known = sorted(file.stem for file in _SETS.glob("*.jsonl"))
    _require(path.stem in known, f"no set is called {name!r}; those that come with the package are {', '.join(known)}")
    return path


def read_facts(rows: Iterable[Mapping[str, Any]], *, origin: str = "facts", first: int = 1) -> list[Fact]:
    """Check the rows of a file of facts. Raises InputError, which names the row, for one that is no fact.

    `first` is the id of the first one, where rows do not say theirs.
    """
    facts = [_fact(row, first + place, f"{origin}:{place + 1}") for place, row in enumerate(rows)]
    if not facts:
        raise InputError(f"{origin} has no facts; write one JSON object a line, with prompt and target")
    require_distinct(facts, origin)
    return facts


def require_distinct(facts: Sequence[Fact], origin: str) -> None:
    """Raise InputError for two facts of the same id."""
    ids = [fact.id for fact in facts]
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise InputError(f"{origin} has the id {twice!r} twice; give each fact one of its own")


def _fact(fields: Mapping[str, Any], number: int, origin: str) -> Fact:
    given = {name: value for name, value in fields.items() if value is not None}
    for name in _TEXTS:
        _require(isinstance(given.get(name, ""), str), f"{origin}: `{name}` must be text")
    for name in _LISTS:
        if name in given:
            given[name] = _texts(given[name], f"{origin}: `{name}`")
    _require(given.get("prompt") is not None, f"{origin}: a fact needs `prompt`")
    kind = given.get("kind", FACT)
    _require(kind in ASKED, f"{origin}: `kind` must be one of {', '.join(ASKED)}, not {kind!r}")
    given["target"] = _target(given, kind, origin)
    _require(isinstance(given.get("id", ""), str | int), f"{origin}: `id` must be text or a whole number")
    known = {name: given[name] for name in (*_TEXTS, *_LISTS) if name in given}
    return Fact(id=str(given.get("id", number)), origin=origin, **known)


def _target(given: Mapping[str, Any], kind: str, origin: str) -> str:
    """Return what the model should say: the target, the right choice, or nothing where it completes the prompt."""
    target = str(given.get("target", ""))
    if kind == CHOICE:
        return _right_choice(given, target, origin)
    _require("choices" not in given, f"{origin}: `choices` are for the kind {CHOICE}")
    _require(
        kind == GENERATION or target.strip(), f"{origin}: a fact needs `target`, the text that the model should say"
    )
    _require(not target or target.strip(), f"{origin}: `target` must not be blank; leave it out to let the model go on")
    return target


def _right_choice(given: Mapping[str, Any], target: str, origin: str) -> str:
    choices = given.get("choices", ())
    _require(len(set(choices)) == len(choices) > 1, f"{origin}: `choices` must be two or more different texts")
    place = given.get("answer")
    if place is not None:
        _require(
            isinstance(place, int) and not isinstance(place, bool) and 0 <= place < len(choices),
            f"{origin}: `answer` must be the place of the right one of `choices`, from 0",
        )
        _require(not target or target == choices[place], f"{origin}: `answer` and `target` are different choices")
        return str(choices[place])
    _require(target in choices, f"{origin}: `target` must be one of `choices`, or `answer` the place of the right one")
    return target


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
