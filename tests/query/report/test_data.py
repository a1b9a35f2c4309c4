"""A report as data says everything that the page says, and cannot be mistaken for markup."""

import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path

from proponent.query.report import TokenShare, render_html, render_markdown
from proponent.query.report.data import SCHEMA, as_data, block, to_json
from proponent.schema.settings import ReportSettings

DOCUMENTED = Path(__file__).parents[3] / "docs" / "report.md"


def keys(data):
    if isinstance(data, dict):
        return set(data) | {key for name, value in data.items() if name != "facts" for key in keys(value)}
    return {key for one in data for key in keys(one)} if isinstance(data, list) else set()


def test_every_key_is_documented(hostile_report):
    told = as_data(replace(hostile_report, settings=ReportSettings(compare=True)))
    names = keys(told) - set(told["check"]["settings"])
    documented = set(re.findall(r"`(\w+)`", DOCUMENTED.read_text("utf-8")))
    assert names - documented - {"trace"} == set()


def test_data_are_ascii_and_come_back(hostile_report):
    for report in (hostile_report, replace(hostile_report, settings=ReportSettings(compare=True))):
        text = to_json(as_data(report))
        assert text.isascii()
        told = json.loads(text)
        assert told["questions"][0]["proponents"][0]["text"] == report.queries[0].proponents[0].text
        assert told["title"] == report.title


def test_numbers_that_json_has_no_word_for_are_null(make_report, make_query, make_hit):
    hits = (make_hit(score=float("nan")), make_hit(rank=2, score=float("inf"), z_score=float("-inf")))
    [told] = as_data(make_report(make_query(target_loss=float("inf"), proponents=hits)))["questions"]

    assert [hit["score"] for hit in told["proponents"]] == [None, None]
    assert (told["target_loss"], told["probability"], told["log_probability"]) == (None, None, None)
    json.dumps(told, allow_nan=False)


def test_a_hit_has_its_tokens_and_no_more_of_a_date_than_is_known(make_report, make_query, make_hit):
    hit = make_hit(
        text="Paris is it", tokens=(TokenShare(0, 5, 0.25),), published=date(2021, 3, 14), published_precision="month"
    )
    [told] = as_data(make_report(make_query(proponents=(hit,))))["questions"][0]["proponents"]

    assert told["tokens"] == [{"text": "Paris", "start": 0, "end": 5, "share": 0.25}]
    assert told["published"] == "2021-03"


def test_the_block_ends_nothing_that_it_stands_in(hostile_report):
    written = to_json(block(hostile_report), indent=None)

    assert not re.search(r"[<>&`\n]", written)
    assert json.loads(written) == json.loads(json.dumps(block(hostile_report)))
    html, markdown = render_html(hostile_report), render_markdown(hostile_report)
    assert html.count("</script>") == 1
    assert f'<script type="application/json" id="proponent-report">{written}</script>' in html
    assert markdown.endswith(f"<!-- proponent-report {written} -->\n")


def test_the_block_tells_what_a_change_is_found_by(make_report, make_query, make_hit):
    before = block(make_report())
    assert before["schema"] == SCHEMA
    assert before == block(make_report())
    changed = block(make_report(make_query(proponents=(make_hit(text="Lyon is the capital."),))))
    assert changed["traces"][0]["hits"][0][4] != before["traces"][0]["hits"][0][4]
    # Shares of tokens have other roundings on another machine.
    shaded = make_hit(tokens=(TokenShare(0, 5, 0.1),))
    [one, other] = (block(make_report(make_query(proponents=(hit,)))) for hit in (shaded, replace(shaded, tokens=())))
    assert one == other
