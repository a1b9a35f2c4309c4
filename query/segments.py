"""An answer in segments: each is a question of its own, after the prompt and all of the answer that comes before it.

Notable: a segment is conditioned on what comes before it, so the losses of all add up to that of the whole answer, but
for tokens that reach over a seam. Which answer a segment is of, and where it stands there, is told by the metadata of
its query; answers that begin alike share the queries of their beginning.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from proponent.schema.errors import InputError
from proponent.schema.ids import content_id

from .questions import Question, read_ask, resolve, resolve_in_words

if TYPE_CHECKING:
    from proponent.encode.encoder import Encoder

SEGMENT_OF: Final = "segment_of"
"""Field of a query's metadata: the answers that it is a segment of, by their ids."""
MOST_COMPLETED: Final = 64
"""Tokens that the model completes a line with, where its own answer is to be cut."""


class TracedAnswer(NamedTuple):
    """An answer that was traced in segments."""

    answer_id: str
    """Id of prompt, answer and seams; it goes for the name of a query set where traces are looked for."""
    trace_ids: list[str]
    """The segments' traces, in the order of the text."""


def answer_id(segments: Sequence[Question]) -> str:
    """Return the id of the answer that some questions are the segments of, in order."""
    return content_id("answer", segments[0].prompt, *(segment.target for segment in segments))


def resolve_whole(prompt: str, target: str | None, encoder: "Encoder | None", *, query_set: str | None) -> Question:
    """Return the question that is to be cut, its target completed where there is none; without an encoder, in words."""
    ask = read_ask({"prompt": prompt, "target": target})
    if encoder is None:
        return resolve_in_words(ask, query_set=query_set)
    return resolve(ask, encoder, query_set=query_set, max_tokens=MOST_COMPLETED)


def in_segments(question: Question, ends: Sequence[int]) -> list[Question]:
    """Cut a question's target at some places, in characters, the last of which is its end.

    Raises InputError for a question that is not of one prompt and one target.
    """
    if question.parts or question.members:
        raise InputError("an answer in segments is one plain text after one prompt, without chat and comparison")
    bounds = list(zip([0, *ends], ends, strict=False))
    cut = [
        question._replace(
            prompt=question.prompt + question.target[:start],
            target=question.target[start:end],
            origin=f"segment {number} of {len(ends)} (characters {start} to {end}, after all before)",
        )
        for number, (start, end) in enumerate(bounds, start=1)
    ]
    whole = answer_id(cut)
    return [
        one._replace(metadata={SEGMENT_OF: {whole: {"segment": number, "start": start, "end": end}}})
        for number, (one, (start, end)) in enumerate(zip(cut, bounds, strict=True), start=1)
    ]


def joined_metadata(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what is known of a query after it was asked again: what was said last, and all answers that it is of."""
    (answers, others), (new_answers, new_others) = _divided(old or {}), _divided(new or {})
    answers = answers | new_answers
    return (new_others or others) | ({SEGMENT_OF: answers} if answers else {}) or None


def _divided(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the answers, and everything else; a field of the same name that is no such mapping is somebody's own."""
    answers = metadata.get(SEGMENT_OF)
    if not isinstance(answers, dict):
        return {}, dict(metadata)
    return dict(answers), {name: value for name, value in metadata.items() if name != SEGMENT_OF}
