"""An evaluation through the public API: it agrees with traces, is resumed, and is told in three files."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from proponent.cli import cli
from proponent.encode.tail_patch import weights_hash
from proponent.lake import Lake
from proponent.query.evaluate import study
from proponent.query.evaluate.metrics import METRICS, distinct, ranks_of
from proponent.schema.errors import (
    EncodingError,
    InputError,
    ModelError,
    ModelMismatchError,
    NotFoundError,
    SettingsError,
)
from proponent.schema.settings import TailPatchSettings

QUICK: dict[str, Any] = {"resamples": 100}


def measure(ranks: Sequence[int]) -> dict[str, float]:
    return {name: metric(ranks) for name, metric in METRICS.items()}


def means(found: Any, method: str) -> dict[str, float]:
    [one] = [one for one in found.results["methods"] if one["name"] == method]
    return {name: value["mean"] for name, value in one["attribution"]["strict"]["metrics"].items()}


def orders(found: Any, method: str) -> list[list[str]]:
    [one] = [one for one in found.results["methods"] if one["name"] == method]
    texts: list[list[str]] = one["orders"]["proponents"]
    return texts


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("with:trackstar", {"encoder": "with"}),
        ("without:gradcos", {"encoder": "without", "method": "gradcos"}),
        ("without:trak", {"encoder": "without", "method": "trak"}),
        ("bm25", {"method": "bm25"}),
    ],
)
def test_orders_are_those_of_traces(lake: Lake, facts: list[dict[str, Any]], name: str, asked: dict[str, Any]) -> None:
    found = lake.evaluate(facts, methods=[name], **QUICK)
    ids = lake.trace_all([(fact["prompt"], fact["target"]) for fact in facts], k=100, **asked)
    hits = lake.hits(ids).to_dicts()
    text_of = {row["passage_id"]: row["text_hash"] for row in lake.sql("FROM passages").to_dicts()}
    traced = [
        distinct(text_of[hit["passage_id"]] for hit in hits if (hit["trace_id"], hit["side"]) == (one, "proponent"))
        for one in ids
    ]
    assert orders(found, name) == traced
    by_key = {row["doc_key"]: row["text_hash"] for row in
              lake.sql("SELECT doc_key, text_hash FROM passages JOIN documents USING (doc_id)").to_dicts()}  # fmt: skip
    by_hand = [
        measure(ranks_of(one, {by_key[fact["doc_keys"][0]]})) for one, fact in zip(traced, facts[:-1], strict=False)
    ]
    for metric, mean in means(found, name).items():
        assert mean == pytest.approx(sum(one[metric] for one in by_hand) / len(by_hand))


def test_a_hybrid_joins_both_orders(lake: Lake, facts: list[dict[str, Any]]) -> None:
    found = lake.evaluate(facts, methods=["with:hybrid", "with:trackstar", "bm25"], **QUICK)
    for fused, *parts in zip(*(orders(found, one["name"]) for one in found.results["methods"]), strict=True):
        sums = {key: sum(1 / (61 + part.index(key)) for part in parts if key in part) for key in set().union(*parts)}
        assert [sums[key] for key in fused] == pytest.approx(sorted(sums.values(), reverse=True)[: len(fused)])


def test_facts_without_a_stating_passage_are_left_out_and_counted(lake: Lake, facts: list[dict[str, Any]]) -> None:
    more = [*facts, {**facts[0], "id": "gone", "doc_keys": ["nowhere"]}]
    found = lake.evaluate(more, methods=["random"], filter="text NOT LIKE '%Kenya%'", **QUICK).results
    assert found["facts"]["skipped"] == {
        "no stating passage is known": 1,
        "no stating passage is among those searched": 3,
    }
    assert found["facts"]["unknown_ids"] == 1
    assert found["methods"][0]["attribution"]["strict"]["metrics"]["mrr"]["n"] == 4
    assert found["searched"]["texts"] == 48


def test_a_passage_stands_for_its_text_and_all_that_have_it_count(lake: Lake, facts: list[dict[str, Any]]) -> None:
    rows = lake.sql("SELECT passage_id, text_hash, doc_key FROM passages JOIN documents USING (doc_id)").to_dicts()
    one, other = (next(row for row in rows if row["doc_key"] == key) for key in ("d0", "d60"))
    assert one["text_hash"] == other["text_hash"]
    fact = {**facts[0], "doc_keys": None}
    alike = [lake.evaluate([{**fact, "passage_ids": [row["passage_id"]]}], methods=["bm25"], **QUICK).results
             for row in (one, other)]  # fmt: skip
    assert alike[0]["methods"][0]["ranks"] == alike[1]["methods"][0]["ranks"]
    assert [found["facts"]["passages"] for found in alike] == [[2], [2]]
    assert list(alike[0]["methods"][0]["attribution"]["strict"]["by_frequency"]) == ["2 to 9"]


def test_both_entities_count_and_kinds_are_told_apart(lake: Lake, facts: list[dict[str, Any]]) -> None:
    found = lake.evaluate(facts[:1], methods=["bm25"], depth=10, **QUICK).results["methods"][0]
    strict, both = (found["ranks"][gold][0] for gold in ("strict", "both"))
    assert len(strict) == 1
    assert len(both) == 3  # The, A and Every capital of France lies on a river
    assert found["kinds"][0]["states"] == 1
    assert sum(shares.get("both", 0) for shares in found["kinds"]) == 2
    assert all(sum(shares.values()) == pytest.approx(1) for shares in found["kinds"] if shares)


def test_a_run_of_another_tool_is_measured_like_what_it_repeats(
    lake: Lake, facts: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = lake.evaluate(facts, methods=["bm25"], **QUICK)
    joined = lake.sql("SELECT text_hash, passage_id, doc_key FROM passages JOIN documents USING (doc_id)").to_dicts()
    keys = {row["text_hash"]: row for row in joined}
    lines = [
        f"{fact['id']} Q0 {keys[text]['doc_key' if rank % 2 else 'passage_id']} {rank} {-rank} other"
        for fact, order in zip(facts, orders(found, "bm25"), strict=True)
        for rank, text in enumerate(order, start=1)
    ]
    (tmp_path / "run.txt").write_text("\n".join(lines))
    again = lake.evaluate(facts, methods=[f"run:other={tmp_path / 'run.txt'}"], **QUICK)
    assert orders(again, "other") == orders(found, "bm25")
    (tmp_path / "run.txt").write_text("unstated Q0 nobody 1 1 other")
    with pytest.raises(InputError, match="'nobody' among them"):
        lake.evaluate(facts, methods=[f"run:other={tmp_path / 'run.txt'}"], **QUICK)
    with pytest.raises(InputError, match="cannot be read"):
        lake.evaluate(facts, methods=["run:other=nofile"], **QUICK)


@pytest.fixture(scope="module")
def folder(lake: Lake, facts: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of two methods with influence on three facts."""
    output = tmp_path_factory.mktemp("results") / "first"
    model = lake.model().model
    before = weights_hash(model)
    found = lake.evaluate(facts, methods=["with:trackstar", "bm25"], tail_patch=3, output=output, **QUICK)
    assert weights_hash(model) == before
    assert set(found.results["influence"]) == {
        "random passages", "with:trackstar, proponents", "with:trackstar, opponents", "bm25, proponents",
        "bm25, opponents",
    }  # fmt: skip
    assert found.results["influence"]["bm25, opponents"]["probability"] is None
    assert found.results["steps"]["how"] == {"optimizer": "sgd", "lr": 0.01, "share": 1.0, "model": "tiny"}
    return output


def test_proponents_push_more_than_opponents(folder: Path) -> None:
    influence = json.loads((folder / "results.json").read_text("utf-8"))["influence"]
    proponents, opponents = (
        influence[f"with:trackstar, {side}"]["log_probability"] for side in ("proponents", "opponents")
    )
    assert proponents["mean"] > max(0, opponents["mean"])
    assert proponents["n"] == 3


def test_what_is_there_is_not_computed_again(
    lake: Lake, facts: list[dict[str, Any]], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(folder, tmp_path / "copy")
    before = json.loads((folder / "results.json").read_text("utf-8"))
    ranked, patched = [], []
    rank, patching = study.rankings.rank, study.tail.patching
    monkeypatch.setattr(study.rankings, "rank", lambda one, *rest: ranked.append(one.spec.name) or rank(one, *rest))
    monkeypatch.setattr(study.tail, "patching", lambda *rest: patched.append(1) or patching(*rest))
    again = {"output": folder, **QUICK}
    same = lake.evaluate(facts, methods=["with:trackstar", "bm25"], tail_patch=3, **again).results
    assert (ranked, patched) == ([], [])
    assert json.loads(json.dumps(same)) == before | {"snapshot": lake.snapshot.snapshot_id}
    lake.evaluate(facts, methods=["random"], **again)
    lake.evaluate(facts, methods=["bm25", "random"], **again)
    assert ranked == ["random"]  # what is not asked for is set aside
    lake.evaluate(facts, methods=["bm25"], filter="source IS NULL", **again)
    assert ranked == ["random"]  # the same texts
    lake.evaluate(facts[:3], methods=["bm25"], **again)
    lake.evaluate(facts, methods=["bm25"], depth=20, **again)
    assert ranked == ["random", "bm25", "bm25"]


def test_an_evaluation_that_was_cut_short_goes_on(
    lake: Lake, facts: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked: list[str] = []
    rank = study.rankings.rank

    def dies(one: Any, *rest: Any) -> Any:
        if one.spec.name == "random" and "random" not in ranked:
            ranked.append("random")
            raise KeyboardInterrupt
        ranked.append(one.spec.name)
        return rank(one, *rest)

    monkeypatch.setattr(study.rankings, "rank", dies)
    with pytest.raises(KeyboardInterrupt):
        lake.evaluate(facts, methods=["bm25", "random"], output=tmp_path / "cut", **QUICK)
    lake.evaluate(facts, methods=["bm25", "random"], output=tmp_path / "cut", **QUICK)
    assert ranked == ["bm25", "random", "random"]


def test_a_metric_deeper_than_the_lists_is_not_told(lake: Lake, facts: list[dict[str, Any]]) -> None:
    found = lake.evaluate(facts, methods=["bm25"], depth=50, **QUICK)
    assert found.mean("bm25", "recall@100") is None
    assert found.mean("bm25", "recall@10") is not None


def test_hostile_names_are_shown_and_not_run(lake: Lake, facts: list[dict[str, Any]], tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "a|b\ud800\n# x", "[link](http://x)"]
    rows = [{**fact, "relation": name} for fact, name in zip(facts, names, strict=False)]
    lake.evaluate(rows, methods=["bm25", "random"], output=tmp_path / "out", **QUICK)
    page, text = ((tmp_path / "out" / name).read_text("utf-8") for name in ("results.html", "results.md"))
    assert "&lt;script&gt;" in page
    assert "<script" not in page + text
    assert "](http://x)" not in text
    assert "\n# x" not in text


def test_a_fact_that_the_model_cannot_read_is_named(lake: Lake, facts: list[dict[str, Any]]) -> None:
    long = {**facts[0], "id": "long", "prompt": "France " * 100}
    for methods, patches in ((["with:trackstar"], 0), (["bm25"], 8)):
        with pytest.raises(EncodingError, match="facts:8: prompt and target have"):
            lake.evaluate([*facts, long], methods=methods, tail_patch=patches, **QUICK)


def test_a_file_that_is_no_evaluation_is_left_alone(lake: Lake, facts: list[dict[str, Any]], tmp_path: Path) -> None:
    for text in ("{", "[]", "{}", '{"format": "proponent-evaluation/1"}'):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(InputError, match="is no evaluation"):
            lake.evaluate(facts, methods=["random"], output=tmp_path, **QUICK)
        assert (tmp_path / "results.json").read_text() == text


def test_all_is_every_method_that_the_lake_allows(lake: Lake, facts: list[dict[str, Any]]) -> None:
    found = lake.evaluate(facts, **QUICK)
    assert [one["name"] for one in found.results["methods"]] == [
        "with:trackstar", "without:logra", "without:trak", "without:gradcos", "without:graddot", "bm25",
        "with:hybrid", "random",
    ]  # fmt: skip
    assert len(found.results["comparisons"]) == 8 * 7 / 2
    assert all(row["p"] <= row["p_holm"] <= 1 for row in found.results["comparisons"])


@pytest.mark.parametrize(
    ("methods", "error"),
    [
        (["with:graddot"], ModelMismatchError),
        (["nobody:trackstar"], NotFoundError),
        (["with:trackstar@nothing"], NotFoundError),
        ([], SettingsError),
        (["run:bm25=x", "bm25"], SettingsError),
        (["dense:nowhere"], ModelError),
    ],
)
def test_what_cannot_be_compared_is_refused(
    lake: Lake, facts: list[dict[str, Any]], methods: list[str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        lake.evaluate(facts, methods=methods, **QUICK)


def test_adam_needs_an_optimizer_state(lake: Lake, facts: list[dict[str, Any]]) -> None:
    with pytest.raises(SettingsError, match="without an optimizer state"):
        lake.evaluate(facts, methods=["random"], tail_patch=TailPatchSettings(facts=1, optimizer="adam"), **QUICK)


def test_a_dense_encoder_ranks_by_the_cosine(
    lake: Lake, facts: list[dict[str, Any]], tmp_path: Path, make_tokenizer: Callable[..., Any]
) -> None:
    import torch
    from transformers import BertConfig, BertModel

    from proponent.encode.sentences import load_sentence_encoder

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=320, initializer_range=0.5, **sizes)).save_pretrained(tmp_path / "mini")
    tokenizer = make_tokenizer()
    tokenizer.pad_token = "</s>"
    tokenizer.save_pretrained(tmp_path / "mini")
    found = lake.evaluate(facts, methods=[f"dense:{tmp_path / 'mini'}"], **QUICK)
    encoder = load_sentence_encoder(tmp_path / "mini")
    texts = {row["text_hash"]: row["text"] for row in lake.sql("FROM passages").to_dicts()}
    alone = {key: encoder.embed([text])[0] for key, text in texts.items()}
    for fact, order in zip(facts, orders(found, "dense:mini"), strict=True):
        [asked] = encoder.embed([fact["prompt"] + fact["target"]])
        scores = [float(asked @ alone[key]) for key in order]
        assert scores == pytest.approx(sorted((float(asked @ one) for one in alone.values()), reverse=True), abs=1e-5)
    assert found.results["methods"][0]["cost"]["bytes_stored"] is None


def test_results_are_told_in_three_files(lake: Lake, facts: list[dict[str, Any]], tmp_path: Path) -> None:
    output = tmp_path / "results"
    found = lake.evaluate(facts, methods=["with:trackstar", "bm25"], tail_patch=2, output=output, **QUICK)
    page, text = (output / "results.html").read_text("utf-8"), (output / "results.md").read_text("utf-8")
    assert found.to_html() == page
    for section in found.sections:
        assert section.title in page
        assert f"## {section.title}" in text.replace("\\", "")
    assert page.count("<svg") == 2 + 1 + 2
    assert "<script" not in page
    assert "http" not in page
    assert found.mean("bm25", "mrr") == json.loads((output / "results.json").read_text("utf-8"))["methods"][1][
        "attribution"]["strict"]["metrics"]["mrr"]  # fmt: skip


def test_the_command_prints_what_it_writes(
    lake: Lake, facts: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts), "utf-8")
    command = ["evaluate", str(lake.store.root), str(tmp_path / "facts.jsonl"), "--methods", "bm25,random"]
    cli.main([*command, "--resamples", "100", "-q", "-o", str(tmp_path / "out")], standalone_mode=False)
    printed = capsys.readouterr()
    assert "7 facts; every method searches 72 passages, 60 distinct texts" in printed.out
    assert "Attribution" in printed.out
    assert printed.err == ""
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["results.html", "results.json", "results.md"]
