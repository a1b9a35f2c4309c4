"""A question is a weighted sum of parts: one way to write it down, one id, plain words, and clear refusals."""

from typing import Any

import pytest

from proponent.query.questions import Ask, Part, Question, mean, read_ask
from proponent.schema.errors import InputError
from proponent.schema.ids import content_id, query_id

USER = [{"role": "user", "content": "Hi"}]


def test_a_row_with_prompt_and_target_is_a_plain_question() -> None:
    assert read_ask({"prompt": "P", "target": " T", "id": 7}) == Ask(prompt="P", targets=(" T",), metadata={"id": 7})
    assert read_ask({"prompt": "P", "target": None}) == Ask(prompt="P")


def test_a_row_may_have_several_targets_and_one_to_compare_with() -> None:
    ask = read_ask({"prompt": "P", "targets": [" A", " B"], "instead": " C"})
    assert (ask.targets, ask.instead, ask.n_parts) == ((" A", " B"), " C", 3)
    assert read_ask({"prompt": "P", "instead": " C"}).n_parts == 2


def test_a_chat_row_is_a_users_turn_or_has_messages() -> None:
    assert (
        read_ask({"prompt": "Hi", "chat": True})
        == read_ask({"messages": USER})
        == read_ask({"prompt": "Hi"}, chat=True)
    )
    assert read_ask({"prompt": "Hi", "chat": False}, chat=True).messages == ()
    turns = [{"role": "system", "content": "Be brief."}, *USER]
    assert read_ask({"messages": turns}).prompt == "system: Be brief.\nuser: Hi"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "either `prompt` or `messages`"),
        ({"target": " T"}, "either `prompt` or `messages`"),
        ({"prompt": None}, "either `prompt` or `messages`"),
        ({"prompt": "P", "messages": USER}, "either `prompt` or `messages`"),
        ({"prompt": 7}, "`prompt` must be text, not int"),
        ({"prompt": ["P"]}, "`prompt` must be text, not list"),
        ({"prompt": "P", "target": 7}, "`target` must be text, not int"),
        ({"prompt": "P", "target": " A", "targets": [" B"]}, "not both"),
        ({"prompt": "P", "targets": []}, "`targets` must be a list of texts"),
        ({"prompt": "P", "targets": " A"}, "`targets` must be a list of texts"),
        ({"prompt": "P", "targets": [" A", 7]}, "`targets` must be text, not int"),
        ({"prompt": "P", "targets": [" A", " A"]}, "a target is given twice"),
        ({"prompt": "P", "target": " A", "instead": " A"}, "' A' is both the target and what it is compared with"),
        ({"prompt": "P", "target": " A", "instead": [" B"]}, "`instead` must be text, not list"),
        ({"prompt": "P", "chat": "yes"}, "`chat` must be true or false"),
        ({"messages": USER, "chat": False}, "leave out `chat: false`"),
        ({"messages": []}, "`messages` must be a list of objects"),
        ({"messages": "Hi"}, "`messages` must be a list of objects"),
        ({"messages": [{"role": "user"}]}, "`messages` must be a list of objects"),
        ({"messages": [{"role": "user", "content": 7}]}, "`messages` must be a list of objects"),
        ({"messages": [*USER, {"role": "assistant", "content": "Yes"}]}, "give its answer as the target"),
    ],
)
def test_a_bad_row_is_refused_with_its_file_and_row(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        read_ask(fields, origin="asked.jsonl:3")
    assert str(caught.value).startswith("asked.jsonl:3: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plain_question_keeps_its_id_whatever_it_was_asked_with() -> None:
    plain = Question("The capital of", " France")
    assert plain.query_id == query_id("The capital of", " France") == content_id("query", "The capital of", " France")
    assert plain._replace(completed=True, query_set="facts", origin="a:1").query_id == plain.query_id
    assert mean([plain]).query_id == plain.query_id
    assert plain.to_json() is None


def test_different_questions_have_different_ids() -> None:
    def of(*parts: Part) -> Question:
        return Question("P", "T", parts=parts)

    plain = [Question("P", " A"), Question("P", " B")]
    asked = [
        *plain,
        of(Part("P", " A"), Part("P", " B", -1.0)),
        of(Part("P", " B"), Part("P", " A", -1.0)),
        of(Part("P", " A", 0.5), Part("P", " B", 0.5)),
        of(Part("P", " A", 1.0, "<P>")),
        of(Part("P", " A", 1.0, "[P]")),
        mean(plain),
        mean([*plain, plain[0]]),
        mean([plain[1], of(Part("P", " A", 1.0, "<P>"))]),
    ]
    assert len({question.query_id for question in asked}) == len(asked)


def test_a_mean_names_its_queries_and_records_every_part() -> None:
    facts = [Question(f"The capital of {n}", f" {n}", query_set="facts", completed=n > 0) for n in range(7)]
    averaged = mean(facts)
    assert averaged.prompt == "mean over 7 queries of facts"
    assert averaged.target == "' 0'; ' 1'; ' 2'; ' 3'; ' 4' and 2 more"
    assert not averaged.completed
    assert averaged.to_json() == [
        {"prompt": fact.prompt, "target": fact.target, "weight": 1.0, "query": fact.query_id} for fact in facts
    ]
    with pytest.raises(InputError, match="no queries to average"):
        mean([])
