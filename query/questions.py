"""Questions: what is asked, from how somebody puts it to the sum of gradients that is searched with.

Notable: a question is a weighted sum of parts, each a prompt and a target, since everything is linear in the encodings
psi. Several targets are the mean of theirs, `instead` is taken off, and the method normalises the sum. A mean over
queries is taken after that and is not normalised again, so that a passage's score is the mean of its scores.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from proponent.schema.errors import EncodingError, InputError
from proponent.schema.ids import mean_id, query_id, sum_id

if TYPE_CHECKING:
    from proponent.encode.encoder import Encoder

_FIELDS: Final = ("prompt", "messages", "target", "targets", "instead", "chat")
_SHOWN: Final = 5
"""Targets that are listed by name where people read; the others are counted."""


class Part(NamedTuple):
    """A prompt, a target, and how much the target's loss counts."""

    prompt: str
    """As people read it."""
    target: str
    weight: float = 1.0
    rendered: str | None = None
    """The prompt in the chat template, which the model reads in its place."""

    def to_json(self) -> dict[str, Any]:
        """Return the part as the catalog keeps it."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class Question(NamedTuple):
    """What is asked: why the model says this target after this prompt, or a sum or mean of such questions."""

    prompt: str
    """As people read it; of a mean, what it is taken over."""
    target: str
    """As people read it, such as "' Paris' and not ' London'"."""
    completed: bool = False
    """Whether the model chose the target itself."""
    query_set: str | None = None
    parts: tuple[Part, ...] = ()
    """What is summed; empty for a plain question, whose prompt and target are its only part."""
    members: tuple["Question", ...] = ()
    """The questions that a mean is taken over."""
    origin: str = ""
    """File and row that the question comes from, to be named when it cannot be answered."""
    metadata: Mapping[str, Any] | None = None
    """What else is known of the question, as JSON data."""

    @property
    def summed(self) -> tuple[Part, ...]:
        """The parts of a sum."""
        return self.parts or (Part(self.prompt, self.target),)

    @property
    def queries(self) -> tuple["Question", ...]:
        """The sums that the mean is taken over; a question that is no mean is the mean of itself."""
        return self.members or (self,)

    @property
    def query_id(self) -> str:
        """Id of everything that is asked, and of nothing else."""
        if self.members:
            return mean_id([member.query_id for member in self.members])
        return sum_id([part.to_json() for part in self.parts]) if self.parts else query_id(self.prompt, self.target)

    @property
    def chat(self) -> bool:
        """Whether the chat template is part of what is asked."""
        return any(part.rendered is not None for query in self.queries for part in query.parts)

    def to_json(self) -> list[dict[str, Any]] | None:
        """Return all parts as the catalog keeps them, those of a mean with the query that they belong to."""
        if self.members:
            return [{**part.to_json(), "query": asked.query_id} for asked in self.members for part in asked.summed]
        return [part.to_json() for part in self.parts] or None


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A question as somebody puts it, checked as far as that needs no model."""

    prompt: str
    """As people read it."""
    messages: tuple[Mapping[str, str], ...] = ()
    """What goes into the chat template; empty when the model reads the prompt as it is."""
    targets: tuple[str, ...] = ()
    """Empty when the model is to complete the prompt."""
    instead: str | None = None
    origin: str = ""
    metadata: Mapping[str, Any] | None = None
    """The row's other fields, as JSON data; None without any."""

    @property
    def n_parts(self) -> int:
        """Examples that have to be encoded."""
        return max(len(self.targets), 1) + (self.instead is not None)


def read_ask(fields: Mapping[str, Any], *, chat: bool = False, origin: str = "") -> Ask:
    """Check a row of a file of queries, or what was given in its place.

    Fields are prompt or messages, target or targets, instead and chat; others are kept as they are. `chat` holds for
    rows that do not say. Raises InputError, which names the origin.
    """
    with naming(origin):
        given = {name: value for name, value in fields.items() if value is not None}
        chat = given.get("chat", chat or "messages" in given)
        _require(isinstance(chat, bool), "`chat` must be true or false")
        _require(("prompt" in given) != ("messages" in given), "needs either `prompt` or `messages`")
        _require(chat or "messages" not in given, "`messages` are for chat models; leave out `chat: false`")
        _require(not ("target" in given and "targets" in given), "needs either `target` or `targets`, not both")
        messages = _messages(given["messages"]) if "messages" in given else ()
        prompt = _displayed(messages) or _text(given.get("prompt", ""), "prompt")
        targets = _targets(given)
        instead = _text(given["instead"], "instead") if "instead" in given else None
        _require_different(targets, instead)
        if chat:
            messages = messages or ({"role": "user", "content": prompt},)
        return Ask(
            prompt=prompt,
            messages=messages,
            targets=targets,
            instead=instead,
            origin=origin,
            metadata=_metadata(given),
        )


def _metadata(given: Mapping[str, Any]) -> dict[str, Any] | None:
    others = {name: value for name, value in given.items() if name not in _FIELDS}
    try:
        # Dates and the like, which Parquet has, become texts.
        kept: dict[str, Any] = json.loads(json.dumps(others, default=str, allow_nan=False))
    except ValueError as error:
        raise InputError(f"a field cannot be kept as JSON: {error}") from error
    return kept or None


def _targets(given: Mapping[str, Any]) -> tuple[str, ...]:
    if "target" in given:
        return (_text(given["target"], "target"),)
    targets = given.get("targets")
    _require(targets is None or (isinstance(targets, list | tuple) and targets), "`targets` must be a list of texts")
    return tuple(_text(target, "targets") for target in targets or ())


def _messages(messages: Any) -> tuple[Mapping[str, str], ...]:
    sound = isinstance(messages, list | tuple) and all(
        isinstance(message, Mapping)
        and set(message) == {"role", "content"}
        and all(isinstance(text, str) for text in message.values())
        for message in messages
    )
    _require(sound and bool(messages), "`messages` must be a list of objects with texts `role` and `content`")
    _require(
        messages[-1]["role"] != "assistant", "the last of `messages` is the assistant's; give its answer as the target"
    )
    return tuple(messages)


def _displayed(messages: Sequence[Mapping[str, str]]) -> str:
    """Return messages as people read them: one user's as it is, several with who says what."""
    if [message["role"] for message in messages] == ["user"]:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _text(value: Any, name: str) -> str:
    _require(isinstance(value, str), f"`{name}` must be text, not {type(value).__name__}")
    return str(value)


def _require(condition: Any, message: str) -> None:
    if not condition:
        raise InputError(message)


def _require_different(targets: Sequence[str], instead: str | None) -> None:
    _require(len(set(targets)) == len(targets), "a target is given twice; name each once")
    _require(instead not in targets, f"{instead!r} is both the target and what it is compared with")


def resolve(ask: Ask, encoder: "Encoder", *, query_set: str | None = None, max_tokens: int | None = None) -> Question:
    """Put what is asked into the model's chat template where that is wanted, and let the model complete it.

    `max_tokens` is how far it goes on at most; without it, as of `completion`. Raises EncodingError when either is
    impossible, InputError when the completion is what it is compared with.
    """
    from proponent.encode.tokens import chat_prompt, completion

    checkpoint = encoder.projector.checkpoint
    with naming(ask.origin):
        rendered = chat_prompt(checkpoint.tokenizer, ask.messages) if ask.messages else None
        targets = ask.targets or (
            completion(
                checkpoint.model,
                checkpoint.tokenizer,
                ask.prompt if rendered is None else rendered,
                rendered=rendered is not None,
                context_length=encoder.context_length,
                max_tokens=max_tokens,
            ),
        )
        _require_different(targets, ask.instead)
    return _question(ask, targets, rendered, query_set)


def resolve_in_words(ask: Ask, *, query_set: str | None = None) -> Question:
    """Return what is asked for a search by words, which reads no model.

    Raises InputError without a target, in a chat, and for a comparison: no word speaks against a target.
    """
    with naming(ask.origin):
        _require(ask.targets, "a search by words reads no model that could complete the prompt; give the target")
        _require(not ask.messages, "a search by words reads no model that has a chat template; ask without chat")
        _require(ask.instead is None, "no word speaks against a target; a search by words takes no `instead`")
    return _question(ask, ask.targets, None, query_set)


def _question(ask: Ask, targets: Sequence[str], rendered: str | None, query_set: str | None) -> Question:
    parts = [Part(ask.prompt, target, 1 / len(targets), rendered) for target in targets]
    if ask.instead is not None:
        parts.append(Part(ask.prompt, ask.instead, -1.0, rendered))
    plain = len(parts) == 1 and rendered is None
    return Question(
        prompt=ask.prompt,
        target=_named(targets, ask.instead),
        completed=not ask.targets,
        query_set=query_set,
        parts=() if plain else tuple(parts),
        origin=ask.origin,
        metadata=ask.metadata,
    )


def mean(questions: Sequence[Question]) -> Question:
    """Return the question whose scores are the means of the questions' scores. Raises InputError for none."""
    _require(questions, "there are no queries to average")
    if len(questions) == 1:
        return questions[0]
    query_set = questions[0].query_set
    return Question(
        prompt=f"mean over {len(questions)} queries" + (f" of {query_set}" if query_set else ""),
        target=_listed(
            [one.target if len(one.parts) > 1 else quoted([one.target])[0] for one in questions], between="; "
        ),
        completed=all(question.completed for question in questions),
        query_set=query_set,
        members=tuple(questions),
    )


def resolve_all(
    asked: Iterable[Ask | Mapping[str, Any] | tuple[str, str | None]],
    encoder: "Encoder | None",
    *,
    query_set: str | None,
    average: bool,
) -> list[Question]:
    """Resolve questions in any form: asks, rows, or pairs of prompt and target. `average` makes one of them all.

    Without an encoder they are for a search by words.
    """
    asks = [
        one
        if isinstance(one, Ask)
        else read_ask(one if isinstance(one, Mapping) else {"prompt": one[0], "target": one[1]})
        for one in asked
    ]
    questions = [
        resolve(ask, encoder, query_set=query_set) if encoder else resolve_in_words(ask, query_set=query_set)
        for ask in asks
    ]
    return [mean(questions)] if average else questions


def _named(targets: Sequence[str], instead: str | None) -> str:
    """Return targets as people read them: one alone as it is, others in quotation marks."""
    if instead is None:
        return targets[0] if len(targets) == 1 else f"{len(targets)} targets: {_listed(quoted(targets))}"
    several = f"{len(targets)} targets: " if len(targets) > 1 else ""
    return f"{several}{_listed(quoted(targets))} and not {quoted([instead])[0]}"


def quoted(texts: Iterable[str]) -> list[str]:
    """Return texts in quotation marks, which show the space that a target begins with."""
    return [f"'{text}'" for text in texts]


def _listed(texts: Sequence[str], *, between: str = ", ") -> str:
    more = len(texts) - _SHOWN
    return between.join(texts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def naming(origin: str) -> Iterator[None]:
    """Name the file and row of a question before what is wrong with it."""
    try:
        yield
    except (InputError, EncodingError) as error:
        if not origin:
            raise
        raise type(error)(f"{origin}: {error}") from error
