"""What is recomputed is the score by its definition, and tau says how the order changes."""

import json
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import proponent
from proponent.encode.gradients import Example
from proponent.encode.tokens import passage_examples, query_example
from proponent.encoders import encoder_row
from proponent.lake import Lake
from proponent.query.recompute import kendall_tau
from proponent.query.stored import stored_question
from proponent.schema.errors import SettingsError
from proponent.schema.settings import EncoderSettings

SIZES = {"side": 8, "blocks": 1, "sample": 40}
QUESTION = ("The capital of", " France")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path, sentences: list[str]) -> Iterator[Lake]:
    """Sentences, every tenth of them twice, under an encoder with second moments, one without, and one in bfloat16."""
    folder = tmp_path_factory.mktemp("again")
    rows = [{"id": f"d{n}", "text": text} for n, text in enumerate([*sentences, *sentences[::10]])]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with proponent.init(folder / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest(folder / "rows.jsonl", corpus="c")
        lake.encode(encoder="corrected", settings=EncoderSettings(moments="estimated", **SIZES))
        lake.encode(encoder="plain", settings=EncoderSettings(moments="none", **SIZES))
        lake.encode(encoder="half", settings=EncoderSettings(moments="none", precision="bfloat16", **SIZES))
        yield lake


def pairs(values: list[float]) -> Iterator[int]:
    for one, other in combinations(values, 2):
        yield (one > other) - (one < other)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12))
def test_tau_is_that_of_its_definition(scores: list[tuple[int, int]]) -> None:
    one, other = ([float(pair[place]) for pair in scores] for place in (0, 1))
    both = list(zip(pairs(one), pairs(other), strict=True))
    untied = sum(a != 0 for a, _ in both) * sum(b != 0 for _, b in both)
    expected = sum(a * b for a, b in both) / untied**0.5 if untied else None
    assert kendall_tau(one, other) == (None if expected is None else pytest.approx(expected))


def test_tau_of_known_orders() -> None:
    assert kendall_tau([3, 2, 1], [30, 20, 10]) == 1
    assert kendall_tau([3, 2, 1], [10, 20, 30]) == -1
    assert kendall_tau([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)
    assert kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / 6**0.5)
    assert kendall_tau([1.0], [2.0]) is kendall_tau([], []) is kendall_tau([1, 1], [1, 2]) is None


def full_scores(
    lake: Lake, full_gradients: Callable[..., Any], texts: list[str], queries: list[list[tuple[str, str, float]]],
    *, encoder: str, unit_norm: bool,
) -> list[float]:  # fmt: skip
    """Score texts by gradients of autograd in float64: the mean over queries, each a weighted sum of parts."""
    loaded = lake._encoders.in_full_precision(encoder_row(lake.store, encoder))
    tokenizer, moments = loaded.projector.checkpoint.tokenizer, loaded.projector.moments
    parts = [query_example(tokenizer, p, t, context_length=64) for query in queries for p, t, _ in query]
    examples: list[Example] = [*parts, *passage_examples(tokenizer, texts)]
    corrected = []
    for name, formed in full_gradients(loaded.projector.checkpoint.model, examples).items():
        gradient = formed
        if moments is not None:
            rows, columns = (side.double().clamp_min(side.mean().item() * 1e-8) for side in
                             (moments.rows[name], moments.columns[name]))  # fmt: skip
            gradient = gradient / (torch.outer(rows, columns) / rows.mean()).sqrt()
        corrected.append(gradient.flatten(1))
    whole = torch.cat(corrected, dim=1)
    total, start = torch.zeros(whole.shape[1], dtype=torch.float64), 0
    for query in queries:
        summed = sum(weight * whole[start + place] for place, (_, _, weight) in enumerate(query))
        total += (summed / summed.norm() if unit_norm else summed) / len(queries)
        start += len(query)
    passages = whole[len(parts) :]
    scores: list[float] = (passages @ total / (passages.norm(dim=1) if unit_norm else 1)).tolist()
    return scores


@pytest.mark.parametrize(
    ("encoder", "method"),
    [("corrected", "trackstar"), ("plain", "gradcos"), ("plain", "graddot"), ("half", "logra")],
)
def test_every_score_is_that_of_its_definition(
    lake: Lake, full_gradients: Callable[..., Any], encoder: str, method: str
) -> None:
    found = lake.trace(*QUESTION, encoder=encoder, method=method, k=6).to_dicts()
    told = lake.recompute(found[0]["trace_id"])
    assert [(one["side"], one["texts"]) for one in told] == [
        (side, len({row["text"] for row in found if row["side"] == side})) for side in ("proponent", "opponent")
    ]
    rows = lake.sql(
        "SELECT recomputed.*, text FROM recomputed JOIN passages USING (passage_id) WHERE trace_id = ? "
        "ORDER BY side DESC, rank", [found[0]["trace_id"]],
    ).to_dicts()  # fmt: skip
    assert [(row["passage_id"], row["score"]) for row in rows] == [(row["passage_id"], row["score"]) for row in found]
    expected = full_scores(
        lake, full_gradients, [row["text"] for row in rows], [[(*QUESTION, 1.0)]], encoder=encoder,
        unit_norm=method != "graddot",
    )  # fmt: skip
    assert [row["score_full"] for row in rows] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    rounding = 0.05 if encoder == "half" else 0.01
    largest = max(abs(row["score"]) for row in rows)
    assert [row["score_exact"] for row in rows] == pytest.approx(
        [row["score"] for row in rows], rel=rounding, abs=rounding * largest
    )
    if method in ("gradcos", "graddot"):  # there is no curvature to leave out
        assert [row["score_unwhitened"] for row in rows] == pytest.approx([row["score_exact"] for row in rows])
    for one in told:
        texts = {row["text"]: row for row in rows if row["side"] == one["side"]}
        orders = [[row[name] for row in texts.values()] for name in
                  ("score", "score_exact", "score_unwhitened", "score_full")]  # fmt: skip
        assert one["tau"] == pytest.approx(kendall_tau(orders[0], orders[3]))
        for place, step in enumerate(("tau_codes", "tau_curvature", "tau_projection")):
            assert one[step] == pytest.approx(kendall_tau(orders[place], orders[place + 1]))


def test_the_unwhitened_score_is_that_of_the_trace_without_a_curvature(lake: Lake) -> None:
    found = lake.trace(*QUESTION, encoder="corrected", k=5).to_dicts()
    lake.recompute(found[0]["trace_id"])
    rows = lake.sql("SELECT * FROM recomputed WHERE trace_id = ?", [found[0]["trace_id"]]).to_dicts()
    plain = lake.trace(*QUESTION, encoder="corrected", curvature="identity", k=1000).to_dicts()
    scores = {row["passage_id"]: row["score"] for row in plain}
    for row in rows:
        assert row["score_unwhitened"] == pytest.approx(scores[row["passage_id"]], abs=0.01)
        assert row["score_unwhitened"] != pytest.approx(row["score_exact"], abs=1e-4)


def test_sums_and_means_are_recomputed_as_they_were_asked(lake: Lake, full_gradients: Callable[..., Any]) -> None:
    asked = [
        {"prompt": "The capital of", "targets": [" France", " Peru"], "instead": " Kenya"},
        {"prompt": "A currency of", "target": " Peru"},
        {"prompt": "A currency of", "target": " Peru"},
    ]
    [trace_id, *_] = lake.trace_all(asked, encoder="corrected", average=True, k=4)
    lake.recompute(trace_id)
    rows = lake.sql("SELECT score_full, text FROM recomputed JOIN passages USING (passage_id) WHERE trace_id = ?",
                    [trace_id]).to_dicts()  # fmt: skip
    first = [("The capital of", " France", 0.5), ("The capital of", " Peru", 0.5), ("The capital of", " Kenya", -1.0)]
    second = [("A currency of", " Peru", 1.0)]
    texts = [row["text"] for row in rows]
    expected = full_scores(lake, full_gradients, texts, [first, second, second], encoder="corrected", unit_norm=True)
    assert [row["score_full"] for row in rows] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_stored_question_is_the_one_that_was_asked(lake: Lake) -> None:
    from proponent.query.questions import mean, read_ask, resolve

    loaded = lake._encoders.encoder(encoder_row(lake.store, "plain"))
    ask = read_ask({"prompt": "One", "targets": [" a", " b"], "instead": " c"})
    other = read_ask({"prompt": "Two", "target": " a"})
    resolved = [resolve(one, loaded) for one in (ask, other, ask)]
    for question in (*resolved, mean(resolved)):
        parts = json.dumps(question.to_json()) if question.to_json() else None
        row = {"prompt": question.prompt, "target": question.target, "parts": parts}
        again = stored_question(row)
        assert [one.summed for one in again.queries] == [one.summed for one in question.queries]


def test_recomputing_again_computes_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from proponent.query import recompute

    lake.trace("Every language of", " Peru", encoder="corrected", k=3)
    first = lake.recompute("last", 2)
    monkeypatch.setattr(recompute, "compare", None)
    before = lake.snapshot
    assert lake.recompute("last", 2) == first
    assert lake.snapshot == before
    with pytest.raises(TypeError):
        lake.recompute("last", 3)
    statuses = lake.sql("SELECT status FROM runs WHERE kind = 'recompute' ORDER BY started_at").to_dicts()
    assert [run["status"] for run in statuses][-2:] == ["done", "failed"]


def test_more_than_the_trace_has_is_refused(lake: Lake) -> None:
    lake.trace(*QUESTION, encoder="corrected", k=3)
    for n in (0, 4, -1):
        with pytest.raises(SettingsError, match="1 to 3 hits of each side"):
            lake.recompute("last", n)


def test_a_report_tells_how_the_order_changed(lake: Lake, tmp_path: Path) -> None:
    rows = lake.trace("A capital of", " Kenya", encoder="corrected", k=4).to_dicts()
    for n in (2, 4):
        told = lake.recompute(rows[0]["trace_id"], n)
    text = lake.report(rows[0]["trace_id"], tmp_path / "r.md").read_text("utf-8")
    for one in told:
        assert (
            f"| {one['side'].capitalize()}s in full | `Kendall tau {one['tau']:.2f} over {one['texts']} texts" in text
        )
