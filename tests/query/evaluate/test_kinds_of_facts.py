"""What is asked in four kinds: files and sets, completions, choices, and results by kind."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from proponent.cli import cli
from proponent.encode.tail_patch import TailPatch
from proponent.encode.tokens import query_example
from proponent.evaluated import facts_of
from proponent.lake import Lake
from proponent.query.evaluate.facts import ASKED, read_facts
from proponent.query.evaluate.tail import sampled
from proponent.schema.errors import InputError

SETS = ("builtin:facts", "builtin:arithmetic", "builtin:choice", "builtin:generation")
CHOICE = {"kind": "choice", "prompt": "The capital of", "choices": [" Peru", " France", " Kenya"]}


@pytest.mark.parametrize(("name", "kind"), [*zip(SETS, ASKED, strict=True)])
def test_a_set_of_the_package_is_of_its_kind(name: str, kind: str) -> None:
    facts = facts_of(name)
    assert 20 <= len(facts) <= 40
    assert {fact.kind for fact in facts} == {kind}
    assert len({(fact.prompt, fact.target) for fact in facts}) == len(facts)
    assert all(fact.target.startswith(" ") for fact in facts) == (kind != "generation")
    assert any(fact.subject for fact in facts) == (kind == "fact")
    if kind == "choice":
        places = Counter(fact.choices.index(fact.target) for fact in facts)
        assert max(places.values()) - min(places.values()) <= 1  # no place is a good guess


def test_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "target": " b"}\n' * 2)
    facts = facts_of([str(tmp_path / "a.jsonl"), "builtin:choice", tmp_path / "a.jsonl"])
    assert [fact.id for fact in facts[:2]] + [fact.id for fact in facts[-2:]] == ["1", "2", "27", "28"]
    assert facts[-1].origin == f"{tmp_path / 'a.jsonl'}:2"
    with pytest.raises(InputError, match="these files together has the id 'choice-1' twice"):
        facts_of(["builtin:choice", "builtin:choice"])
    with pytest.raises(InputError, match="are arithmetic, choice, facts, generation"):
        facts_of("builtin:sums")
    with pytest.raises(InputError, match="no facts"):
        facts_of([])


def test_the_right_choice_is_a_text_or_a_place() -> None:
    facts = read_facts([{**CHOICE, "answer": 1}, {**CHOICE, "target": " France"}])
    assert {(fact.target, fact.alternatives) for fact in facts} == {(" France", (" Peru", " Kenya"))}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({**CHOICE}, "`target` must be one of `choices`"),
        ({**CHOICE, "target": " Chile"}, "`target` must be one of `choices`"),
        ({**CHOICE, "answer": 3}, "`answer` must be the place"),
        ({**CHOICE, "answer": True}, "`answer` must be the place"),
        ({**CHOICE, "answer": 0, "target": " France"}, "are different choices"),
        ({**CHOICE, "choices": [" Peru"]}, "two or more different"),
        ({**CHOICE, "choices": [" Peru", " Peru"]}, "two or more different"),
        ({**CHOICE, "kind": "fact", "target": " Peru"}, "`choices` are for the kind choice"),
        ({"kind": "sum", "prompt": "a", "target": " b"}, "`kind` must be one of fact, arithmetic, choice, generation"),
        ({"kind": "arithmetic", "prompt": "1 + 1 ="}, "needs `target`"),
        ({"kind": "generation", "prompt": "a", "target": " "}, "must not be blank"),
    ],
)
def test_what_is_of_no_kind_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_facts([fields])


def test_so_many_are_drawn_of_each_kind() -> None:
    facts = facts_of(SETS)
    drawn = sampled(facts, 5, seed=1)
    assert drawn == sorted(set(drawn))
    assert Counter(facts[place].kind for place in drawn) == dict.fromkeys(ASKED, 5)
    assert len(sampled(facts, 1000, seed=1)) == len(facts)


def test_a_model_completes_what_has_no_target(
    lake: Lake, facts: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    prompts = [{"kind": "generation", "prompt": prompt} for prompt in ("The capital of", "Every", "France " * 100)]
    found = lake.evaluate([*facts[:2], *prompts], methods=["bm25"], tail_patch=2, resamples=100)
    told = found.results["facts"]
    caplog.clear()  # its random model says what is read as other tokens
    assert told["n"] == 4
    assert set(told["completed"]) == {"3", "4"}
    assert (
        told["left_out"] == {"the prompt has 101 tokens, the model reads 64": 1} or sum(told["left_out"].values()) == 1
    )
    assert "completed by the model itself: 2 prompts" in found.told
    by_kind = found.results["answers"]["by_kind"]
    assert by_kind["generation"]["right"] is None
    assert by_kind["generation"]["log_probability"]["n"] == 2
    assert set(found.results["influence_by_kind"]["random passages"]) == {"fact", "generation"}


def test_a_choice_is_measured_against_the_likeliest_of_the_others(lake: Lake) -> None:
    found = lake.evaluate([{**CHOICE, "answer": 1}], methods=["bm25"], tail_patch=1, resamples=100).results
    loaded = lake.model()
    targets = [query_example(loaded.tokenizer, CHOICE["prompt"], one, context_length=64) for one in CHOICE["choices"]]  # type: ignore[arg-type]
    texts = {row["text_hash"]: row["text"] for row in lake.sql("FROM passages").to_dicts()}
    with TailPatch(loaded.model, lr=1e-2) as stepping:
        likely = [stepping.log_probability(one) for one in targets]
        other = max((0, 2), key=lambda place: likely[place])
        differences = []
        for key in found["methods"][0]["orders"]["proponents"][0][:10]:
            passage = query_example(loaded.tokenizer, "", texts[key], context_length=64)
            right, wrong = stepping.changes(passage, [targets[1], targets[other]])
            differences.append(right.log_probability - wrong.log_probability)
    measured = found["influence_by_kind"]["bm25, proponents"]["choice"]["difference"]["mean"]
    assert measured == pytest.approx(sum(differences) / len(differences), rel=1e-3)
    assert found["answers"]["right"] == [likely[1] == max(likely)]
    assert found["answers"]["log_probability"] == pytest.approx([likely[1]])


def test_sets_are_named_on_the_command_line(lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", str(lake.store.root), "builtin:facts", "builtin:choice", "--methods", "bm25,random"]
    cli.main([*command, "--resamples", "100", "-q", "-o", str(tmp_path)], standalone_mode=False)
    assert "54 facts; every method searches 72 passages" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert Counter(results["facts"]["kinds"]) == {"fact": 30, "choice": 24}
    page = (tmp_path / "results.html").read_text("utf-8")
    assert "What the model tiny says itself" in page
