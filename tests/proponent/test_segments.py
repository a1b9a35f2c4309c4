"""An answer in segments: they are the answer again, each is asked after all before it, and a report joins them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import proponent
from proponent.cli import cli
from proponent.lake import Lake
from proponent.schema.errors import EncodingError, InputError, NotFoundError, SettingsError
from proponent.schema.settings import EncoderSettings
from proponent.segments import segment_ends, segment_rule

PROMPT = "The capital of"
ANSWER = " France lies on a river.  Its name?\nParis"
SENTENCES = [" France lies on a river.", "  Its name?", "\nParis"]


@pytest.fixture(scope="module")
def lake(
    tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path], sentences: list[str]
) -> Iterator[Lake]:
    folder = tmp_path_factory.mktemp("segments")
    rows = [
        {"id": place, "text": text, "source": f"s{place % 3}", "title": f"T{place}"}
        for place, text in enumerate(sentences)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with proponent.init(folder / "lake") as lake:
        lake.add_model(make_checkpoint(folder / "checkpoint", seed=1, max_position_embeddings=200), name="tiny")
        lake.ingest(folder / "rows.jsonl", corpus="sentences")
        lake.encode("tiny", settings=EncoderSettings(blocks=1, side=8, moments="none", sample=60))
        yield lake


def queries(lake: Lake, trace_ids: list[str]) -> list[dict[str, Any]]:
    rows = lake.sql(
        "SELECT prompt, target, metadata, completed FROM traces JOIN queries USING (query_id) "
        "WHERE trace_id IN (SELECT unnest($ids)) ORDER BY list_position($ids, trace_id)",
        {"ids": trace_ids},
    ).to_dicts()
    return [row | {"metadata": json.loads(row["metadata"])} for row in rows]


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr or str(done.exception)


def cut(text: str, rule: str | int) -> list[str]:
    ends = segment_ends(text, rule)
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(
    text=st.text(st.sampled_from("ab.!?。”) \n\t\u3000\x1c\U0001f600é"), max_size=60),
    rule=st.sampled_from(["sentences", 1, 2, 5]),
)
def test_segments_joined_are_the_text_and_none_is_only_white_space(text: str, rule: str | int) -> None:
    segments = cut(text, rule)
    assert "".join(segments) == text
    assert all(segment.strip() for segment in segments) or segments == [text]
    if isinstance(rule, int):
        assert all(len(segment.split()) == rule for segment in segments[:-1])


def test_white_space_begins_the_segment_behind_it() -> None:
    assert cut(ANSWER + "\n ", "sentences") == [*SENTENCES[:2], "\nParis\n "]
    assert cut(ANSWER, 4) == [" France lies on a", " river.  Its name?\nParis"]


@pytest.mark.parametrize("wrong", ["0", 0, -1, True, "words", "", "1.5"])
def test_segments_of_another_kind_are_refused(wrong: str | int) -> None:
    with pytest.raises(SettingsError, match="sentences"):
        segment_rule(wrong)


def test_each_segment_is_asked_after_all_that_comes_before_it(lake: Lake) -> None:
    answer_id, ids = lake.trace_segments(PROMPT, ANSWER, method="logra", k=3)
    asked = queries(lake, ids)
    starts = [0, 24, 35]
    assert [row["target"] for row in asked] == SENTENCES
    assert [row["prompt"] for row in asked] == [PROMPT + ANSWER[:start] for start in starts]
    assert [row["metadata"]["segment_of"][answer_id] for row in asked] == [
        {"segment": place + 1, "start": start, "end": start + len(SENTENCES[place])}
        for place, start in enumerate(starts)
    ]
    # They are the traces that anybody gets who asks so.
    assert ids == lake.trace_all([(row["prompt"], row["target"]) for row in asked], method="logra", k=3)


def test_answers_that_begin_alike_keep_what_is_known_of_both(lake: Lake) -> None:
    options: dict[str, Any] = {"method": "logra", "k": 3}
    lake.trace_all([{"prompt": "Every", "target": " language.", "topic": "speech"}], **options)
    short = lake.trace_segments("Every", " language. Every currency.", **options)
    long = lake.trace_segments("Every", " language. Every mountain. Every capital.", query_set="long", **options)
    assert short.trace_ids[0] == long.trace_ids[0]
    assert (len(short.trace_ids), len(long.trace_ids)) == (2, 3)
    assert lake.traces_of_set(short.answer_id) == short.trace_ids
    assert lake.traces_of_set(long.answer_id) == long.trace_ids
    lake.trace_all([{"prompt": "Every", "target": " language.", "topic": "tongues", "answers": ["x"]}], **options)
    [first] = queries(lake, long.trace_ids[:1])
    assert (first["metadata"]["topic"], first["metadata"]["answers"]) == ("tongues", ["x"])
    with pytest.raises(NotFoundError):
        lake.traces_of_set('$."')
    assert set(first["metadata"]["segment_of"]) == {short.answer_id, long.answer_id}


def test_an_answer_longer_than_the_context_names_the_segment_and_stores_nothing(lake: Lake) -> None:
    before = lake.status()
    with pytest.raises(EncodingError, match=r"^segment \d+ of 90 \(characters \d+ to \d+.*the model reads 200"):
        lake.trace_segments(PROMPT, " France lies on a river." * 90, method="logra")
    assert lake.status() == before


def test_only_one_plain_answer_is_cut(lake: Lake) -> None:
    wrong: Any = [{"role": "user", "content": "Which?"}]
    with pytest.raises(InputError, match="`prompt` must be text"):
        lake.trace_segments(wrong, ANSWER, method="logra")
    where = ("trace", lake.store.root, "--segments")
    for more, told in (
        (["--prompt", "P", "--chat"], "leave out --chat"),
        (["--prompt", "P", "--instead", " x"], "leave out --instead"),
        (["--prompt", "P", "--target", "a", "--target", "b"], "give --target once"),
        (["--queries", "file.jsonl"], "leave out --queries"),
    ):
        code, _, err = run(*where, "sentences", *more)
        assert (code, told in err) == (2, True), err


def test_the_models_own_answer_is_cut(lake: Lake) -> None:
    [whole] = queries(lake, lake.trace_segments(PROMPT, segments=1000, method="logra").trace_ids)
    parts = queries(lake, lake.trace_segments(PROMPT, segments=1, method="logra").trace_ids)
    assert len(parts) > 1
    assert "".join(row["target"] for row in parts) == whole["target"]
    assert all(row["completed"] for row in parts)


def test_a_terminal_shows_the_answer_segment_by_segment(lake: Lake) -> None:
    code, out, err = run(
        *("trace", lake.store.root, "--prompt", PROMPT, "--target", ANSWER, "--segments", "--method", "logra", "-k", 3)
    )
    assert code == 0, err
    places = [out.index(f"[{place}]") for place in (1, 2, 3)]
    assert places == sorted(places)
    answer_id, ids = lake.trace_segments(PROMPT, ANSWER, method="logra", k=3)
    assert f"--set {answer_id}" in err
    for trace_id, start, end in zip(ids, places, [*places[1:], len(out)], strict=True):
        found = [hit for hit in lake.hits([trace_id]).to_dicts() if hit["side"] == "proponent"]
        assert [hit["title"] in out[start:end] and hit["source"] in out[start:end] for hit in found] == [True] * 3


@pytest.mark.parametrize(
    "name", ["r.html", *(pytest.param(name, marks=pytest.mark.full) for name in ("r.md", "r.json", "pages/"))]
)
def test_a_report_joins_the_answer_and_holds(lake: Lake, tmp_path: Path, name: str) -> None:
    answer_id, ids = lake.trace_segments(PROMPT, ANSWER, method="logra", k=3)
    code, _, err = run("report", lake.store.root, "--set", answer_id, "-o", f"{tmp_path}/{name}", "--no-groups")
    assert code == 0, err
    made = tmp_path / name
    lake.trace_segments(PROMPT, ANSWER + " Lyon.", method="logra", k=3)  # what begins alike changes nothing
    assert lake.verify_report(made).differences == ()
    text = (made / "report.json" if made.is_dir() else made).read_text("utf-8")
    if made.suffix == ".json" or made.is_dir():
        [answer] = json.loads(text)["answers"]
        assert (answer["prompt"], answer["text"]) == (PROMPT, ANSWER)
        assert [answer["text"][one["start"] : one["end"]] for one in answer["segments"]] == SENTENCES
        assert [one["trace_id"] for one in answer["segments"]] == ids
        first = lake.hits(ids[:1]).to_dicts()[0]
        leading = answer["segments"][0]["leading"][0]
        assert (leading["title"], leading["source"], leading["score"]) == (
            first["title"],
            first["source"],
            first["score"],
        )
    else:
        assert "Each segment is conditioned on what comes before it" in text
        link = "(#question-3)" if name == "r.md" else 'href="#query-3"'
        assert text.index("The whole answer") < text.index(link) < text.index("Influence is not entailment")
    if made.is_dir():
        assert 'class="cite" href="003.html"' in (made / "index.html").read_text("utf-8")
