"""Facts and runs of other tools: what is taken, and what is refused by its line."""

from pathlib import Path
from typing import Any

import pytest

from proponent.query.evaluate.facts import facts_hash, read_facts
from proponent.query.evaluate.methods import Spec, parse_method
from proponent.query.evaluate.texts import Names
from proponent.query.evaluate.trec import read_run
from proponent.schema.errors import InputError, SettingsError

ROW = {"prompt": "France. Capital:", "target": " Paris"}


def test_a_fact_has_defaults() -> None:
    [fact] = read_facts([ROW | {"subject": "France", "aliases": "Lutetia", "doc_keys": ["fr"], "other": 1}])
    assert (fact.id, fact.subject_names, fact.object_names) == ("1", ("France",), ("Paris", "Lutetia"))
    assert fact.has_gold
    assert not read_facts([ROW | {"doc_keys": None}])[0].has_gold


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"target": None}, "facts:1: a fact needs `target`"),
        ({"target": "  "}, "facts:1: a fact needs `target`"),
        ({"prompt": None}, "needs `prompt`"),
        ({"prompt": 3}, "`prompt` must be text"),
        ({"doc_keys": [1]}, "`doc_keys` must be a text, or a list of texts"),
        ({"id": [1]}, "`id` must be"),
    ],
)
def test_what_is_no_fact_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_facts([ROW | fields])


def test_two_facts_of_one_id_and_none_at_all_are_refused() -> None:
    with pytest.raises(InputError, match="the id 'a' twice"):
        read_facts([ROW | {"id": "a"}, ROW | {"id": "a"}])
    with pytest.raises(InputError, match="no facts"):
        read_facts([])


def test_the_hash_is_of_all_that_is_said_and_of_nothing_else() -> None:
    here, there = (read_facts([ROW], origin=origin) for origin in ("a", "b"))
    assert facts_hash(here) == facts_hash(there)
    others = [read_facts([ROW | more]) for more in ({"relation": "capital"}, {"doc_keys": ["x"]}, {"id": "7"})]
    assert len({facts_hash(one) for one in [here, *others]}) == 4


def test_names_are_found_as_whole_words_in_any_script() -> None:
    names = Names(["Peru", "São Tomé", "日本", "New  York", "C++"])
    assert names.within("PERU and Peruvian") == {"peru"}
    assert names.within("Peruvians, Sao Tome") == set()
    assert names.within("in Sa\u0303o Tome\u0301.") == {"são tomé"}
    assert names.within("私は日本にいる") == {"日本"}
    assert names.within("new york uses C++ ") == {"new york", "c++"}
    assert Names([]).within("anything") == set()


def test_methods_are_read() -> None:
    assert parse_method(" e:trackstar@task ") == Spec("e:trackstar@task", "trackstar", "e", "task")
    assert parse_method("bm25") == Spec("bm25", "bm25")
    assert parse_method("run:gecko=a/b=c.txt") == Spec("gecko", "run", path=Path("a/b=c.txt"))
    assert parse_method("dense:models/mini") == Spec("dense:mini", "dense", path=Path("models/mini"))
    assert parse_method("dense:m=models/mini") == Spec("dense:m", "dense", path=Path("models/mini"))
    assert parse_method("e:hybrid").influence == "trackstar"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tracstar",
        ":trackstar",
        "trackstar@",
        "e:bm25",
        "run:x",
        "run:=f",
        "run:a b=f",
        "graddot@x",
        "dense:",
        "dense:x=",
    ],
)
def test_what_is_no_method_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_method(text)


def test_a_run_is_ordered_by_its_scores_and_ties_by_their_ranks(tmp_path: Path) -> None:
    path = tmp_path / "run.txt"
    path.write_text("q 0 low 1 0.5 t\nq Q0 second 3 2 t\n\nq Q0 first 2 2 t\nq Q0 low 9 0.1 t\nother Q0 x 1 1 t\n")
    assert read_run(path, ["q", "other", "unasked"]) == {"q": ["first", "second", "low"], "other": ["x"]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("q Q0 d 1\n", "run.txt:1: needs"),
        ("q Q0 d one 0.5 t\n", "run.txt:1: needs"),
        ("q Q0 d 1 nan t\n", "run.txt:1: the score is no finite number"),
        ("q Q0 an id 1 2 3 t\n", "run.txt:1: needs"),
        ("q Q0 d 1 1 t\nz Q0 d 1 1 t\n", "run.txt, query z: no fact has the id 'z'"),
        ("\n", "no lines"),
    ],
)
def test_a_damaged_run_is_refused_by_its_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "run.txt").write_text(text)
    with pytest.raises(InputError, match=told):
        read_run(tmp_path / "run.txt", ["q"])
