"""Reports of a real lake: every form, a comparison, a folder, and whether they hold when they are made again."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import proponent
from proponent.cli import cli
from proponent.lake import Lake
from proponent.schema.errors import InputError, NotFoundError, SettingsError
from proponent.schema.settings import EncoderSettings

QUESTIONS = [("France. Capital:", " Paris"), ("Peru. Capital:", " Lima"), ("Kenya. Capital:", " Nairobi")]

FULL = pytest.mark.full


@pytest.fixture(scope="module")
def asked(
    tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path], sentences: list[str]
) -> Iterator[tuple[Lake, list[str]]]:
    """A small lake with a full-text index, and the traces of three questions."""
    folder = tmp_path_factory.mktemp("reports")
    rows = [
        {
            "id": f"d{place}",
            "text": text,
            "source": f"s{place % 3}",
            "date": f"20{10 + place % 9}-05",
            "title": text[:12],
        }
        for place, text in enumerate(sentences)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with proponent.init(folder / "lake") as lake:
        lake.add_model(make_checkpoint(folder / "checkpoint", seed=1), name="tiny")
        lake.ingest(folder / "rows.jsonl", corpus="sentences")
        lake.encode("tiny", settings=EncoderSettings(blocks=1, side=8, moments="none", sample=60))
        lake.index_text()
        ids = lake.trace_all(QUESTIONS, query_set="capitals", method="logra", k=4)
        yield lake, ids


@pytest.fixture
def lake(asked: tuple[Lake, list[str]]) -> Lake:
    return asked[0]


@pytest.fixture
def ids(asked: tuple[Lake, list[str]]) -> list[str]:
    return asked[1]


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    return done.exit_code, done.output if done.exception is None else f"{done.output}{done.exception}"


def test_data_say_what_the_lake_says(lake: Lake, ids: list[str], tmp_path: Path) -> None:
    told = json.loads(lake.report(ids, tmp_path / "r.json").read_text("ascii"))
    hits = lake.hits(ids[:1]).to_dicts()
    question = told["questions"][0]
    listed = question["proponents"] + question["opponents"]
    assert [(hit["passage_id"], hit["score"], hit["text"]) for hit in listed] == [
        (row["passage_id"], row["score"], row["text"]) for row in hits
    ]
    groups = {row["name"]: row for row in lake.group_influence_of(ids[0], by="source").to_dicts()}
    assert [group["label"] for group in question["sources"]["by_source"]] == list(groups)
    for group in question["sources"]["by_source"]:
        assert group["influence"] == pytest.approx(groups[group["label"]]["influence"], rel=1e-4)
        assert group["n_passages"] == groups[group["label"]]["n_passages"]
    assert question["sources"]["n_passages"] == len(lake.sql("SELECT passage_id FROM passages").to_dicts())
    found = lake.trace(*QUESTIONS[0], method="bm25", k=5).to_dicts()
    assert [hit["passage_id"] for hit in question["same_words"]] == [row["passage_id"] for row in found]


@FULL
def test_the_words_beside_hits_are_searched_under_the_same_filter(lake: Lake, tmp_path: Path) -> None:
    [filtered] = lake.trace_all(QUESTIONS[:1], filter="source = 's1'", method="logra", k=3)
    told = json.loads(lake.report(filtered, tmp_path / "r.json").read_text("ascii"))
    assert {hit["source"] for hit in told["questions"][0]["same_words"]} == {"s1"}


@pytest.mark.parametrize("name", ["r.html", *(pytest.param(one, marks=FULL) for one in ("r.md", "r.json", "folder/"))])
def test_a_report_that_was_made_again_holds(lake: Lake, ids: list[str], tmp_path: Path, name: str) -> None:
    settings = {"title": "Three capitals </script> -->", "words": 2}
    made = lake.report(ids, f"{tmp_path}/{name}", **settings)
    found = lake.verify_report(made)
    assert (found.differences, found.remarks, found.traces) == ((), (), 3)
    again = lake.report(
        ids, f"{tmp_path}/again/" if name.endswith("/") else tmp_path / f"again{made.suffix}", **settings
    )
    files = sorted(made.iterdir()) if made.is_dir() else [made]
    others = sorted(again.iterdir()) if again.is_dir() else [again]
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in others]
    if made.is_dir():
        (made / "002.html").unlink()
        assert lake.verify_report(made).differences == ("002.html is missing",)


@pytest.mark.parametrize("name", ["r.html", pytest.param("r.md", marks=FULL)])
def test_what_somebody_wrote_into_a_report_is_found(lake: Lake, ids: list[str], tmp_path: Path, name: str) -> None:
    made = lake.report(ids[0], tmp_path / name)
    text = made.read_text("utf-8")
    line = text[: text.index("Influence is not entailment")].count("\n") + 1
    made.write_text(text.replace("Influence is not entailment", "Influence is entailment"), "utf-8")
    assert lake.verify_report(made).differences == (
        f"{name} was changed after it was made, from line {line} on: its data still hold",
    )
    passage = lake.hits(ids[:1]).to_dicts()[0]["passage_id"]
    made.write_text(text.replace(passage, "a" * 26), "utf-8")
    assert f"proponent 1: was passage {'a' * 26}, is {passage}" in lake.verify_report(made).differences


def test_what_was_withdrawn_is_found_and_named(asked: tuple[Lake, list[str]], tmp_path: Path) -> None:
    shutil.copytree(asked[0].store.root, tmp_path / "lake")
    ids = asked[1]
    with proponent.open(tmp_path / "lake") as lake:
        made = lake.report(ids, tmp_path / "r.html")
        gone = lake.hits(ids[1:2]).to_dicts()[1]
        lake.delete(f"doc_key = '{gone['doc_key']}'")
        found = lake.verify_report(made)
    assert f"question 2, proponent 2: passage {gone['passage_id']} was withdrawn" in found.differences
    assert "question 2, where the influence comes from changed" in found.differences
    code, output = run("report", tmp_path / "lake", "--verify", made)
    assert code == 1
    assert f"proponent 2: passage {gone['passage_id']} was withdrawn" in output
    shutil.copytree(asked[0].store.root, tmp_path / "copy")
    with proponent.open(tmp_path / "copy") as copy:
        found = copy.verify_report(made)
        assert found.differences == ()
        assert found.remarks[0].endswith("the lake was called lake, format 1, and is copy, format 1")
    with proponent.init(tmp_path / "other") as other:
        assert "this lake cannot make it again" in other.verify_report(made).differences[0]


@FULL
def test_a_file_of_another_version_is_compared_by_its_data(lake: Lake, ids: list[str], tmp_path: Path) -> None:
    made = lake.report(ids[0], tmp_path / "r.md")
    made.write_text(re.sub(r'("version":)"[^"]*"', r'\1"0.0.1"', made.read_text("utf-8")), "utf-8")
    found = lake.verify_report(made)
    assert found.differences == ()
    assert "proponent 0.0.1 wrote it" in found.remarks[0]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("r.html", "<p>hello</p>", "no report of proponent"),
        ("r.md", "<!-- proponent-report {} -->\n", "no report of proponent"),
        ("r.md", '<!-- proponent-report {"schema": "9", "traces": [], "settings": {}} -->', "of another form"),
        ("r.json", "[1", "no report of proponent"),
        ("r.txt", "hello", "no report of proponent"),
    ],
)
def test_a_file_that_is_no_report_is_refused(lake: Lake, tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(InputError, match=says):
        lake.verify_report(tmp_path / name)


def test_two_traces_are_compared(lake: Lake, ids: list[str], tmp_path: Path) -> None:
    [other] = lake.trace_all(QUESTIONS[:1], method="gradcos", k=4)
    code, output = run("report", lake.store.root, ids[0], other, "--compare", "-o", tmp_path / "r.json")
    assert code == 0, output
    told = json.loads((tmp_path / "r.json").read_text("ascii"))["comparison"]
    assert told["same_question"]
    assert {"label": "Method", "first": "logra", "second": "gradcos"} in told["settings"]
    ranks = [
        {row["passage_id"]: row["rank"] for row in lake.hits([one]).to_dicts() if row["side"] == "proponent"}
        for one in (ids[0], other)
    ]
    for row in told["proponents"]:
        for place, listed in zip((row["first"], row["second"]), ranks, strict=True):
            if place is not None and place["side"] == "proponent":
                assert listed[row["passage_id"]] == place["rank"]
    assert lake.verify_report(tmp_path / "r.json").differences == ()
    with pytest.raises(SettingsError, match="two traces, not 3"):
        lake.report(ids, tmp_path / "r.html", compare=True)


@FULL
def test_tokens_of_the_first_hits_are_shaded(lake: Lake, ids: list[str], tmp_path: Path) -> None:
    [question] = json.loads(lake.report(ids[0], tmp_path / "r.json", tokens=1).read_text("ascii"))["questions"]
    first, second = question["proponents"][:2]
    explained = lake.explain(ids[0], first["passage_id"])
    assert second["tokens"] == []
    assert sum(token["share"] for token in first["tokens"]) == pytest.approx(
        sum(one.share for one in explained.tokens if one.char_end > one.char_start), rel=1e-4, abs=1e-6
    )
    page = lake.report(ids[0], tmp_path / "r.html", tokens=1).read_text("utf-8")
    assert page.count('<p class="tokens">') == 2
    assert lake.verify_report(tmp_path / "r.html").differences == ()


def test_a_set_becomes_a_folder_with_an_index(lake: Lake, ids: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "capitals"
    code, output = run("report", lake.store.root, "--set", "capitals", "-o", f"{folder}/")
    assert code == 0, output
    pages = sorted(path.name for path in folder.iterdir())
    n = len(lake.traces_of_set("capitals"))
    assert pages == [*(f"{number:03}.html" for number in range(1, n + 1)), "index.html", "report.json"]
    index = (folder / "index.html").read_text("utf-8")
    assert [name for name in pages[:n] if f'href="{name}"' not in index] == []
    assert f"question 1 of {n}" in (folder / "001.html").read_text("utf-8")
    lake.report(ids[:1], folder)
    assert sorted(path.name for path in folder.iterdir()) == ["001.html", "index.html", "report.json"]
    with pytest.raises(NotFoundError, match="query set 'others'"):
        lake.traces_of_set("others")
    with pytest.raises(InputError, match="holds other things"):
        lake.report(ids, tmp_path)


@FULL
def test_a_users_templates_stand_in_place_of_those_of_the_same_name(lake: Lake, ids: list[str], tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    with pytest.raises(InputError, match=r"no template of a report; they are .*hit.html.j2"):
        lake.report(ids[0], tmp_path / "r.html", templates=own)
    (own / "page.html.j2").write_text(
        '{% extends "proponent/page.html.j2" %}\n{% block header %}<p>Acme & Sons: {{ "<b>" }}</p>{{ super() }}'
        "{% endblock %}\n",
        "utf-8",
    )
    made = lake.report(ids[0], tmp_path / "r.html", templates=own)
    text = made.read_text("utf-8")
    assert "<p>Acme & Sons: &lt;b&gt;</p>" in text
    assert "Where the influence comes from" in text
    assert lake.verify_report(made, templates=own) == lake.verify_report(lake.report(ids[0], tmp_path / "plain.html"))
    assert "other templates" in lake.verify_report(made).remarks[0]
    (own / "page.html.j2").write_text("{% if %}", "utf-8")
    with pytest.raises(InputError, match=r"cannot be filled: page.html.j2, line 1"):
        lake.report(ids[0], tmp_path / "r.html", templates=own)
    (own / "page.html.j2").write_text("{{ nothing.here }}", "utf-8")
    with pytest.raises(InputError, match="'nothing' is undefined"):
        lake.report(ids[0], tmp_path / "r.html", templates=own)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "name a trace"),
        (("last",), 2, "name what to write with -o"),
        (("last", "-o", "r.doc"), 1, ".html, .md or .json"),
        (("last", "-o", "nowhere/r.html"), 1, "make the folder first"),
        (("last", "--compare", "-o", "r.html"), 1, "two traces, not 1"),
        (("last", "--verify", "."), 2, "leave out the traces"),
    ],
)
def test_what_cannot_be_made_is_said(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (done := run("report", lake.store.root, *arguments))[0] == code
    assert says in done[1]
    assert list(tmp_path.iterdir()) == []
