"""The study of fact tracing, at a size that says nothing but that it runs, on sentences made here."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

STUDY = Path(__file__).parents[1] / "benchmarks" / "fact_tracing"
RELATIONS = {
    "lives in": ("{} lives in", "The home of {} is"),
    "plays": ("{} plays the", "The instrument of {} is the"),
    "likes": ("{} likes",),
}
OBJECTS = {
    "lives in": ("Quarnstead", "Ulbrook", "Fenmoor", "Tarl"),
    "plays": ("zither", "oboe", "gong", "lute"),
    "likes": ("plums", "chess", "snow", "maps"),
}
NAMES = [f"{first} {last}" for first in ("Ada", "Bo", "Cyr", "Dot", "Eno") for last in ("Ash", "Birch", "Cole", "Dunn")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Both files, with facts of three relations that two sentences state each."""
    folder = tmp_path_factory.mktemp("data")
    facts, sentences = [], []
    for relation, prompts in RELATIONS.items():
        for number, name in enumerate(NAMES):
            fact_id, answer = f"{relation[:4].strip()}{number}", OBJECTS[relation][number % 4]
            stated = [
                f"It is well known that {name} {relation} {answer}.",
                f"In the year {1900 + number} a friend wrote of {name}: {relation} {answer}, and is happy.",
            ]
            keys = [f"s{fact_id}-{place}" for place in range(2)]
            facts.append(
                {
                    "fact_id": fact_id, "subject": name, "relation": relation, "object": answer, "sentence_ids": keys,
                    "subject_aliases": [], "object_aliases": [], "prompts": [one.format(name) for one in prompts],
                }
            )  # fmt: skip
            sentences += [
                {"sentence_id": key, "text": text, "fact_ids": [fact_id]}
                for key, text in zip(keys, stated, strict=True)
            ]
    pq.write_table(pa.Table.from_pylist(facts), folder / "trex_facts.parquet")
    pq.write_table(pa.Table.from_pylist(sentences), folder / "trex_sentences.parquet")
    return folder


def run(data, work, *more):
    command = [sys.executable, STUDY / "run.py", "--data", data, "--work", work, "--size", "toy", "--threads", "1"]
    return subprocess.run([*command, *more], check=False, capture_output=True, text=True)


def rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_corpus_has_the_rows_and_the_gold_it_says(data, tmp_path):
    done = run(data, tmp_path, "--step", "corpus")
    assert done.returncode == 0, done.stderr
    passages = {row["id"]: row["text"] for row in rows(tmp_path / "corpus.jsonl")}
    facts, task = rows(tmp_path / "facts.jsonl"), rows(tmp_path / "task.jsonl")
    assert len(facts) == 12
    assert not {fact["id"] for fact in facts} & {fact["id"] for fact in task}
    for fact in facts:
        assert all(key in passages for key in fact["doc_keys"])
        assert any(not key.startswith("row:") for key in fact["doc_keys"])
    with_row = [fact for fact in facts if f"row:{fact['id']}" in passages]
    assert len(with_row) == 6
    for fact in with_row:
        assert passages[f"row:{fact['id']}"] == fact["prompt"] + fact["target"] + "."


def test_the_folder_of_the_data_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("PROPONENT_TREX", raising=False)
    done = subprocess.run(
        [sys.executable, STUDY / "run.py", "--work", tmp_path], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "PROPONENT_TREX" in done.stderr


def test_a_folder_without_the_data_is_told(tmp_path):
    done = run(tmp_path, tmp_path / "work")
    assert done.returncode == 2
    assert f"{tmp_path} has no trex_facts.parquet" in done.stderr
    assert not (tmp_path / "work").exists()


def test_what_makes_no_table_is_not_published(data, tmp_path):
    done = run(data, tmp_path, "--only", "measure", "--publish")
    assert done.returncode == 2
    assert "report and compare" in done.stderr
    assert not (tmp_path / "corpus.jsonl").exists()


@pytest.fixture
def study(monkeypatch, data, tmp_path):
    """Modules of the study, and a judge of twelve facts of the corpus above."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(STUDY)
    import ranking
    import spaces
    import work

    assert run(data, tmp_path, "--step", "corpus").returncode == 0
    yield ranking, spaces, ranking.Judge(work.Work(data, tmp_path, "toy"))
    for name in set(sys.modules) - before:
        if str(STUDY) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_ranks_leave_the_own_row_out_and_count_ties_against_a_method(study):
    ranking, _, judge = study
    n = len(rows(judge._work.corpus))
    fact = next(place for place, own in enumerate(judge.own) if own >= 0)
    own, sentence = judge.own[fact], judge.sentences[fact][0]
    other = next(place for place in range(n) if place not in (own, *judge.sentences[fact]))
    scores = np.zeros((len(judge.facts), n), np.float32)
    scores[fact, [own, sentence, other]] = 3, 2, 2
    values = judge.values(scores)
    assert values[ranking.OWN][fact] == 1
    assert values[ranking.SENTENCES][fact] == 1 / 2  # the other passage is as good; the own row does not count
    lists = [[] for _ in judge.facts]
    lists[fact] = [own, other, sentence]
    listed = judge.values_of_lists(lists)
    assert (listed[ranking.OWN][fact], listed[ranking.SENTENCES][fact]) == (1, 1 / 2)
    place, column = judge.places[0], scores[judge.places[0]]
    column[:] = np.arange(n)
    first = judge.values(scores)[ranking.LISTS][str(place)]
    assert first == [*range(n - 1, n - 11, -1)]
    steps = {str(key): key / 1000 for key in range(n)}
    judge._work.write("steps", {"changes": {str(one): steps for one in judge.places}})
    measured = judge.with_steps(judge.values(scores))[ranking.TAIL]
    assert measured[place] == pytest.approx(n - 5.5)
    assert set(judge.half(ranking.TUNE)) | set(judge.half(ranking.REPORT)) == set(range(len(judge.facts)))
    assert not set(judge.half(ranking.TUNE)) & set(judge.half(ranking.REPORT))


def test_a_space_whitens_as_the_encoder_does(study):
    import torch

    from proponent.encode.curvature import SecondMoment, Whitening, apply

    _, spaces, _ = study
    draw = np.random.default_rng(0)
    phi = (draw.normal(size=(60, 2, 16)) * draw.uniform(0.1, 3, size=(1, 2, 16))).astype(np.float32)
    moment = SecondMoment(2, 16)
    moment.add(torch.from_numpy(phi[:40]))
    psi = apply(Whitening.of(moment.shrunk()[0]).power(-0.5), torch.from_numpy(phi))
    white = spaces.Space.of(spaces.Split.of(phi, (40, 10, 6, 4))).whitened()
    wanted = spaces.cosines(psi[40:50], psi[:40])
    assert np.allclose(spaces.cosines(white.facts, white.passages), wanted, atol=1e-4)
    task = spaces.fit(white.task, 0.5)
    wanted = spaces.under(spaces.fit(psi[50:56], 0.5), psi[40:50], psi[:40])
    assert np.allclose(spaces.under(task, white.facts, white.passages), wanted, atol=1e-3)


@pytest.mark.full
def test_the_whole_study_runs_and_goes_on_where_it_was(data, tmp_path):
    done = run(data, tmp_path)
    assert done.returncode == 0, done.stderr
    told = (tmp_path / "results.md").read_text("utf-8")
    for heading in ("What was expected", "All methods", "Parts of the method", "Chosen on one half", "Where it fails"):
        assert heading in told
    assert "In memory the default is what the harness ranks" in told
    assert not any(row["text"] in told for row in rows(tmp_path / "corpus.jsonl"))
    (tmp_path / "results.md").unlink()
    again = run(data, tmp_path, "--again", "report")
    assert again.returncode == 0, again.stderr
    assert "train" not in again.stdout
    assert (tmp_path / "results.md").read_text("utf-8") == told
    done = run(data, tmp_path, "--only", "compare")
    assert done.returncode == 0, done.stderr
    assert "main:trackstar" in (tmp_path / "methods.md").read_text("utf-8")
