"""`proponent plan` as somebody types it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import proponent
from proponent.cli import cli
from proponent.cli.plan import duration, readable

ON_PAPER = ["--parameters", "8B", "--tokens", "160B", "--passage-tokens", "512", "--side", "64", "--blocks", "8"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["plan", *(str(one) for one in arguments)])


def test_a_plan_is_made_from_sizes_alone() -> None:
    result = run(*ON_PAPER, "--machine", "h100", "--devices", 64)
    assert result.exit_code == 0, result.output
    assert "4 (N + V h) L" in result.stdout
    assert "21.1 TB" in result.stdout
    assert "as assumed" in result.stderr


def test_a_plan_has_the_forms_of_all_output(tmp_path: Path) -> None:
    result = run(*ON_PAPER, "--machine", "a100", "--price", 0, "--format", "json", "-q")
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    assert {"step", "quantity", "value", "unit", "formula"} == set(rows[0])
    money = {row["quantity"]: row["value"] for row in rows if row["unit"] == "$"}
    assert money["money"] == 0 < money["money a month"]
    assert run(*ON_PAPER, "--machine", "a100", "-o", tmp_path / "plan.csv").exit_code == 0
    assert (tmp_path / "plan.csv").read_text("utf-8").startswith("step,")


def test_a_lake_says_how_large_its_corpus_and_model_are(
    tmp_path: Path, checkpoint_dir: Path, sentences: list[str]
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    rows = [{"id": str(place), "text": text} for place, text in enumerate([*sentences[:8], sentences[0]])]
    corpus.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    with proponent.init(tmp_path / "lake") as lake:
        lake.add_model(checkpoint_dir, name="tiny")
        lake.ingest([corpus], corpus="words")
        [counted] = lake.sql(
            "SELECT count(*) AS texts, sum(n_tokens)::BIGINT AS tokens "
            "FROM (SELECT any_value(n_tokens) AS n_tokens FROM passages GROUP BY text_hash)"
        ).to_dicts()
    result = run(tmp_path / "lake", "--machine", "cpu-core", "--side", 8, "--format", "json")
    assert result.exit_code == 0, result.output
    found = {(row["step"], row["quantity"]): row["value"] for row in json.loads(result.stdout)}
    assert counted["texts"] == 8
    assert abs(found["encode", "passages"] - 8) <= 1  # a mean length in whole tokens
    with proponent.open(tmp_path / "lake") as lake:
        assert lake.sql("SELECT count(*) FILTER (kind = 'plan') AS n FROM runs").to_dicts() == [{"n": 0}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "1B"], "how large the model is"),
        (["--parameters", "1B", "--model", "x", "--tokens", "1B"], "how large the model is"),
        (["--parameters", "1B"], "how many tokens"),
        (["--model", "nowhere", "--tokens", "1B"], "has no config.json"),
        (["--parameters", "1B", "--tokens", "1B", "--use", "0.5"], "--use is for machines of the table"),
        (["nowhere"], "does not exist"),
    ],
)
def test_what_is_missing_is_said(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(*arguments)
    assert result.exit_code != 0
    assert message in str(result.exception)


def test_numbers_are_typed_as_people_say_them() -> None:
    assert run("--parameters", "many", "--tokens", "1B").exit_code == 2
    assert run("--parameters", "0", "--tokens", "1B").exit_code == 2
    assert run(*ON_PAPER, "--machine", "a100", "--devices", 0).exit_code == 2


def test_quantities_are_readable() -> None:
    assert readable(21.13e12, "B") == "21.1 TB"
    assert readable(5.2e21, "FLOP") == "5.2e+21 FLOP"
    assert readable(0.5, "$") == "$ 0.50"
    assert readable(312_500_000, "passages") == "312,500,000 passages"
    assert [duration(one) for one in (0.0123, 5, 600, 9000, 400_000, 1e9)] == [
        "12.3 ms",
        "5 s",
        "10 min",
        "2.5 h",
        "4.63 days",
        "31.7 years",
    ]
