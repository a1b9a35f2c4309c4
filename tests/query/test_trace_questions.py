"""Contrasts, several targets, means over queries and chats, asked through the public API of a small real model."""

import json
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import proponent
from proponent.cli import cli
from proponent.lake import Lake
from proponent.query.questions import read_ask
from proponent.schema.errors import EncodingError, InputError, ProponentError
from proponent.schema.settings import EncoderSettings
from proponent.store.codes import dequantise, read_codes

PROMPT, FRANCE, PERU, KENYA = "The capital of", " France", " Peru", " Kenya lies"
METHODS = [("trackstar", "corrected"), ("logra", "plain"), ("trak", "plain"), ("graddot", "plain")]
ROWS: list[dict[str, Any]] = [
    {"prompt": PROMPT, "target": FRANCE},
    {"prompt": "A currency of", "targets": [PERU, KENYA]},
    {"prompt": "Every language of", "target": KENYA, "instead": PERU},
    {"prompt": "The language of France?", "target": "Dialects.", "chat": True},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("asked")


@pytest.fixture(scope="module")
def lake(folder: Path, make_checkpoint: Callable[..., Path], sentences: list[str]) -> Iterator[Lake]:
    """A lake of sixty sentences under a model with a chat template."""
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(sentences)), "utf-8")
    settings = {"side": 8, "blocks": 1, "sample": 40}
    with proponent.init(folder / "lake") as lake:
        lake.add_model(make_checkpoint(folder / "model", chat=True), name="tiny")
        lake.ingest(corpus, corpus="c")
        lake.encode("tiny", encoder="corrected", settings=EncoderSettings(moments="estimated", **settings))
        lake.encode("tiny", encoder="plain", settings=EncoderSettings(moments="none", **settings))
        yield lake


def vector(lake: Lake, query_id: str, encoder: str = "corrected") -> np.ndarray:
    rows = lake.store.table("queries", at=lake.snapshot).to_table(
        filter=f"encoder = '{encoder}' AND query_id = '{query_id}'"
    )
    [row] = rows.to_pylist()
    assert row["norm"] == pytest.approx(np.linalg.norm(row["vector"]))
    return np.array(row["vector"])


def one(lake: Lake, *question: Any, **options: Any) -> dict[str, Any]:
    """Ask, and return the first hit."""
    return dict(lake.trace(*question, **{"encoder": "corrected", "k": 1000} | options).to_dicts()[0])


def stored(lake: Lake, trace_id: str) -> dict[str, Any]:
    [row] = lake.sql("SELECT * FROM traces JOIN queries USING (query_id) WHERE trace_id = ?", [trace_id]).to_dicts()
    return row | {"parts": json.loads(row["parts"]) if row["parts"] else None}


def scores(lake: Lake, trace_id: str) -> dict[str, float]:
    return {row.passage_id: row.score for row in lake.hits([trace_id])}


def direct_scores(lake: Lake, query: np.ndarray, *, encoder: str, unit_norm: bool) -> dict[str, float]:
    """Score every passage with a query's vector, without the search."""
    rows = lake.store.table(f"encodings_{encoder}", at=lake.snapshot).to_table()
    found = dequantise(read_codes(rows)) @ query
    found = found / np.linalg.norm(query) if unit_norm else found * rows["norm"].to_numpy()
    by_text = dict(zip(rows["text_hash"].to_pylist(), found.tolist(), strict=True))
    return {row.passage_id: by_text[row.text_hash] for row in lake.sql("SELECT passage_id, text_hash FROM passages")}


@pytest.mark.parametrize(("method", "encoder"), METHODS[:3])
def test_a_contrast_is_the_difference_of_two_gradients(lake: Lake, method: str, encoder: str) -> None:
    options = {"method": method, "encoder": encoder}
    france, peru = (one(lake, PROMPT, target, **options)["query_id"] for target in (FRANCE, PERU))
    asked = one(lake, PROMPT, FRANCE, instead=PERU, **options)
    difference = vector(lake, france, encoder) - vector(lake, peru, encoder)
    assert vector(lake, asked["query_id"], encoder) == pytest.approx(difference, abs=1e-4 * np.abs(difference).max())
    expected = direct_scores(lake, difference, encoder=encoder, unit_norm=method != "trak")
    found = scores(lake, asked["trace_id"])
    assert found == pytest.approx(expected, abs=1e-3 * max(map(abs, expected.values())))


def test_the_opposite_contrast_has_the_opposite_scores(lake: Lake) -> None:
    first, second = (one(lake, PROMPT, a, instead=b)["trace_id"] for a, b in ((FRANCE, PERU), (PERU, FRANCE)))
    there, back = scores(lake, first), scores(lake, second)
    assert back == pytest.approx({key: -score for key, score in there.items()}, abs=1e-5)


def test_several_targets_are_the_mean_of_their_gradients(lake: Lake) -> None:
    targets = [FRANCE, PERU, KENYA]
    alone = [one(lake, PROMPT, target) for target in targets]
    together = one(lake, PROMPT, targets)
    expected = np.mean([vector(lake, row["query_id"]) for row in alone], axis=0)
    assert vector(lake, together["query_id"]) == pytest.approx(expected, abs=1e-4 * np.abs(expected).max())
    losses = [stored(lake, row["trace_id"]) for row in alone]
    row = stored(lake, together["trace_id"])
    assert row["target_loss"] == pytest.approx(np.mean([loss["target_loss"] for loss in losses]), rel=1e-5)
    assert row["target_tokens"] == sum(loss["target_tokens"] for loss in losses)


@pytest.mark.parametrize(("method", "encoder"), METHODS)
def test_a_mean_over_queries_scores_the_mean_of_their_scores(lake: Lake, method: str, encoder: str) -> None:
    options: dict[str, Any] = {"method": method, "encoder": encoder, "k": 1000, "query_set": "facts"}
    ids = lake.trace_all(ROWS, **options)
    [averaged] = lake.trace_all(ROWS, average=True, **options)
    alone = [scores(lake, trace_id) for trace_id in ids]
    expected = {key: np.mean([found[key] for found in alone]) for key in alone[0]}
    assert scores(lake, averaged) == pytest.approx(expected, abs=1e-5 * max(map(abs, expected.values())))
    row, each = stored(lake, averaged), [stored(lake, trace_id) for trace_id in ids]
    assert row["target_loss"] == pytest.approx(np.mean([one["target_loss"] for one in each]), rel=1e-5)
    assert row["target_tokens"] == sum(one["target_tokens"] for one in each)


def test_a_mean_records_its_queries_and_stores_their_encodings(lake: Lake) -> None:
    rows = [{"prompt": "A highest mountain of", "target": target} for target in (FRANCE, PERU)]
    before = lake.status()["rows"]["queries"]
    [trace_id] = lake.trace_all(rows, average=True, encoder="corrected", query_set="heights")
    assert lake.status()["rows"]["queries"] == before + 2
    row = stored(lake, trace_id)
    assert (row["prompt"], row["target"]) == ("mean over 2 queries of heights", "' France'; ' Peru'")
    members = lake.sql("SELECT query_id, target FROM queries WHERE prompt = 'A highest mountain of'").to_dicts()
    by_id = {member["query_id"]: member["target"] for member in members}
    assert [(by_id[part["query"]], part["weight"]) for part in row["parts"]] == [(FRANCE, 1.0), (PERU, 1.0)]
    status = lake.status()
    assert lake.trace_all(rows, average=True, encoder="corrected", query_set="heights") == [trace_id]
    assert lake.status() == status


def test_a_mean_of_one_query_is_that_query(lake: Lake) -> None:
    [plain] = lake.trace_all(ROWS[:1], encoder="corrected")
    assert lake.trace_all(ROWS[:1], encoder="corrected", average=True) == [plain]
    with pytest.raises(InputError, match="no queries to average"):
        lake.trace_all([], encoder="corrected", average=True)


def test_what_was_asked_is_recorded_and_said_wherever_hits_are_read(lake: Lake) -> None:
    hit = one(lake, PROMPT, [FRANCE, PERU], instead=KENYA)
    assert (hit["prompt"], hit["target"], hit["chat"]) == (
        PROMPT, "2 targets: ' France', ' Peru' and not ' Kenya lies'", False,
    )  # fmt: skip
    assert stored(lake, hit["trace_id"])["parts"] == [
        {"prompt": PROMPT, "target": FRANCE, "weight": 0.5},
        {"prompt": PROMPT, "target": PERU, "weight": 0.5},
        {"prompt": PROMPT, "target": KENYA, "weight": -1.0},
    ]
    assert one(lake, PROMPT, FRANCE, instead=PERU)["target"] == "' France' and not ' Peru'"
    assert one(lake, PROMPT, [FRANCE, PERU])["target"] == "2 targets: ' France', ' Peru'"
    assert stored(lake, one(lake, PROMPT, FRANCE)["trace_id"])["parts"] is None


def test_the_loss_of_a_contrast_is_the_targets_own(lake: Lake) -> None:
    plain = stored(lake, one(lake, PROMPT, FRANCE)["trace_id"])
    contrast = stored(lake, one(lake, PROMPT, FRANCE, instead=KENYA)["trace_id"])
    assert contrast["target_loss"] == pytest.approx(plain["target_loss"], rel=1e-5)
    assert contrast["target_tokens"] == plain["target_tokens"]


def test_a_chat_is_another_question_and_records_what_the_model_read(lake: Lake) -> None:
    chat, plain = one(lake, "The capital?", "France", chat=True), one(lake, "The capital?", "France")
    assert chat["trace_id"] != plain["trace_id"]
    assert (chat["prompt"], chat["target"], chat["chat"], plain["chat"]) == ("The capital?", "France", True, False)
    [part] = stored(lake, chat["trace_id"])["parts"]
    assert part["rendered"] == "<s><|user|>\nThe capital?</s>\n<|assistant|>\n"
    messages = [{"role": "user", "content": "The capital?"}]
    assert one(lake, messages, "France")["trace_id"] == chat["trace_id"]


def test_without_a_target_the_model_answers_and_is_compared(lake: Lake) -> None:
    hit = one(lake, "The capital of France?", instead="Peru", chat=True)
    row = stored(lake, hit["trace_id"])
    said = lake.complete("The capital of France?", encoder="corrected", chat=True)
    assert [part["target"] for part in row["parts"]] == [said, "Peru"]
    assert row["completed"]
    with pytest.raises(InputError, match="both the target and what it is compared with"):
        lake.trace("The capital of France?", instead=said, chat=True, encoder="corrected")


def test_targets_of_the_same_tokens_are_not_compared(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from proponent.encode.gradients import Example
    from proponent.query import encoded as module

    monkeypatch.setattr(module, "query_example", lambda *_, **__: Example((0, 5, 6), n_target=1))
    with pytest.raises(EncodingError, match="the same tokens to the model's tokenizer: ' a' and not ' b'"):
        lake.trace(PROMPT, " a", instead=" b", encoder="corrected")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"prompt": "P", "target": ""}', "the target is empty"),
        ('{"prompt": "P", "target": " A", "instead": ""}', "the target is empty"),
        ('{"target": " A"}', "either `prompt` or `messages`"),
        ('{"prompt": "P", "target": " A", "instead": " A"}', "both the target and what it is compared with"),
        ('{"prompt": "%s", "target": " A"}' % ("word " * 60), "shorten the prompt"),
        ('{"prompt": "%s", "target": " A", "chat": true}' % ("word " * 60), "shorten the prompt"),
        ('{"prompt": "%s"}' % ("word " * 60), "shorten the prompt"),
        ('{"prompt": "P <|assistant|>\\n", "chat": true}', "in the chat template already"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "tools are not supported"),
        ("[1]", "a JSON list, not an object"),
        ("{", "not JSON"),
    ],
)
def test_a_bad_row_of_a_file_is_one_line_that_names_it_and_stores_nothing(
    lake: Lake, tmp_path: Path, row: str, says: str
) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text('{"prompt": "Never asked before", "target": " this"}\n\n' + row + "\n", "utf-8")
    before = lake.status()
    command = ["trace", str(lake.store.root), "--queries", str(path), "--encoder", "corrected"]
    for options in ([], ["--average"]):
        with pytest.raises(ProponentError) as caught:
            cli.main(command + options, standalone_mode=False)
        assert str(caught.value).startswith(f"{path}:3: ")
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
    assert lake.status() == before


def test_a_model_without_a_template_says_so_and_takes_one(
    folder: Path, make_checkpoint: Callable[..., Path], lake: Lake
) -> None:
    path = make_checkpoint(folder / "base")
    with proponent.init(folder / "bare") as bare:
        bare.add_model(path, name="base")
        bare.ingest(folder / "corpus.jsonl", corpus="c")
        bare.encode(settings=EncoderSettings(moments="estimated", side=8, blocks=1, sample=40))
        with pytest.raises(EncodingError, match=r"no chat template; .* chat_template\.jinja into its folder"):
            bare.trace("Hello", "there", chat=True)
    ids = []
    for template in ("Q: {{ messages[0].content }} A: ", "{{ messages[0].content }} Answer: "):
        (path / "chat_template.jinja").write_text(template, "utf-8")
        with proponent.open(folder / "bare") as bare:
            hit = one(bare, "Hello", "there", chat=True, encoder=None)
            assert stored(bare, hit["trace_id"])["parts"][0]["rendered"] == template.replace(
                "{{ messages[0].content }}", "Hello"
            )
            ids.append(hit["trace_id"])
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--prompt", PROMPT, "--target", FRANCE], [f"{PROMPT}|{FRANCE}\n", "gives this target a probability"]),
        (
            ["--prompt", PROMPT, "--target", FRANCE, "--instead", PERU],
            [f"{PROMPT}\nwhy ' France' and not ' Peru'\n", "gives this target a probability"],
        ),
        (
            ["--prompt", PROMPT, "--target", FRANCE, "--target", PERU],
            ["why 2 targets: ' France', ' Peru'\n", "these targets a probability of", "on geometric average"],
        ),
        (["--prompt", "Hi \x1b[31m", "--target", "Oh", "--chat"], ["in a chat: Hi �[31m|Oh\n"]),
        (["--queries", "FILE", "--average"], ["mean over 4 queries of facts\nwhy ' France'; 2 targets: "]),
        (["--queries", "FILE"], [f"{PROMPT}|{FRANCE}\n", "in a chat: The language of France?|Dialects.\n"]),
    ],
)
def test_the_terminal_says_what_was_asked(
    lake: Lake, folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: list[str]
) -> None:
    path = folder / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    given = [str(path) if option == "FILE" else option for option in options]
    cli.main(["trace", str(lake.store.root), "--encoder", "corrected", "-k", "2", *given], standalone_mode=False)
    printed = capsys.readouterr().out
    for words in says:
        assert words in printed


def test_a_report_says_what_was_asked(lake: Lake, tmp_path: Path) -> None:
    ids = [
        one(lake, "The <b>capital</b> of", FRANCE, instead=" <i>Peru")["trace_id"],
        one(lake, "The capital?", "France", chat=True)["trace_id"],
        *lake.trace_all(ROWS, average=True, encoder="corrected", query_set="facts"),
    ]
    html = lake.report(ids, tmp_path / "r.html").read_text("utf-8")
    assert "towards ‘France’ and not ‘&lt;i&gt;Peru’ after ‘The &lt;b&gt;capital&lt;/b&gt; of’?" in html
    assert "<i>Peru" not in html
    assert "in answer to ‘The capital?’?" in html
    assert "on average over 4 queries?" in html
    assert "&lt;|assistant|&gt;" in html
    markdown = lake.report(ids, tmp_path / "r.md").read_text("utf-8")
    assert "- Instead of: ` <i>Peru`" in markdown
    assert "A score is the mean of the scores under 4 queries." in markdown
    titled = lake.report(ids[0], tmp_path / "one.md").read_text("utf-8").splitlines()[0]
    assert titled.startswith("# Training data behind ' France' and not '")


def test_other_fields_of_a_row_are_kept_with_its_query_and_can_be_grouped_by(lake: Lake, folder: Path) -> None:
    rows = [
        {"prompt": "A capital of", "target": target, "relation": relation, "expected": {"name": target.strip()}}
        for target, relation in ((FRANCE, "capital"), (PERU, "capital"), (KENYA, "other"))
    ]
    queries = folder / "kept.jsonl"
    queries.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    lake.trace("A capital of", PERU, encoder="plain", method="logra")  # before it belongs to a set
    arguments = ["--encoder", "plain", "--method", "logra", "--queries", str(queries), "-k", "3", "-q"]
    cli.main(["trace", str(lake.store.root), *arguments, "--query-set", "mine"], standalone_mode=False)
    found = lake.sql(
        "SELECT query_metadata ->> 'relation' AS relation, query_metadata ->> '$.expected.name' AS name, "
        "count(DISTINCT query_id) AS n FROM influence WHERE query_set = 'mine' GROUP BY ALL ORDER BY name"
    )
    expected = [("capital", "France", 1), ("other", "Kenya lies", 1), ("capital", "Peru", 1)]
    assert [tuple(row) for row in found] == expected
    before = lake.status()["snapshot"]
    again = lake.sql("SELECT count(*) FROM runs").to_dicts()
    cli.main(["trace", str(lake.store.root), *arguments, "--query-set", "mine"], standalone_mode=False)
    assert lake.sql("SELECT count(*) FROM runs").to_dicts() == again
    cli.main(["trace", str(lake.store.root), *arguments], standalone_mode=False)
    assert {row.query_set for row in lake.sql("SELECT query_set FROM queries WHERE prompt = 'A capital of'")} == {
        "kept"
    }
    assert lake.status()["snapshot"] == before
    assert [tuple(row) for row in lake.sql("SELECT metadata FROM queries WHERE target = ' Kenya lies' "
                                           "AND prompt = 'A capital of'")] == [
        ('{"expected": {"name": "Kenya lies"}, "relation": "other"}',)
    ]  # fmt: skip


def test_a_field_that_json_does_not_have_is_kept_as_text_or_refused() -> None:
    asked = read_ask({"prompt": "p", "target": "t", "day": date(2001, 2, 3), "nothing": None})
    assert asked.metadata == {"day": "2001-02-03"}
    assert read_ask({"prompt": "p", "target": "t"}).metadata is None
    with pytest.raises(InputError, match=r"^f:1: a field cannot be kept as JSON"):
        read_ask({"prompt": "p", "target": "t", "score": float("nan")}, origin="f:1")
