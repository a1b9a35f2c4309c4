"""The demonstration finds what it says it finds, can be started again, and survives being killed."""

import random
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import proponent
from proponent.demo.run import run

LINE = re.compile(
    r"(TrackStar|gradient dot product) +among +([\d,]+) passages: +([\d.]+)% of (\d+) facts, .* ([\d.]+)$"
)
CONTENT = (
    "SELECT doc_id, content_hash FROM documents ORDER BY ALL",
    "SELECT passage_id, text FROM passages ORDER BY ALL",
    "SELECT * FROM mentions ORDER BY ALL",
    "SELECT encoder, passage_id, n_tokens, round(loss, 2) FROM encodings ORDER BY ALL",
)
HITS = "SELECT prompt, target, method, filter, side, passage_id, score FROM influence ORDER BY ALL"


def content(folder: Path) -> list[list[dict[str, Any]]]:
    with proponent.open(folder / "lake") as lake:
        return [lake.sql(query).to_dicts() for query in CONTENT]


def require_same(folder: Path, other: Path) -> None:
    """Two lakes say the same, up to the rounding of vectors that were encoded in other batches."""
    assert content(folder) == content(other)
    one, two = scores(folder), scores(other)
    assert one.keys() == two.keys()
    for question, found in one.items():
        expected = two[question]
        assert len(found) == len(expected)
        least = min(map(abs, expected.values()))
        for passage in found.keys() | expected.keys():
            here, there = found.get(passage), expected.get(passage)
            if here is None or there is None:  # two passages of nearly the same score contend for the last place
                assert abs(here or there or 0) == pytest.approx(least, rel=5e-3), question
            else:
                assert here == pytest.approx(there, rel=5e-3, abs=1e-3), question


def scores(folder: Path) -> dict[tuple[Any, ...], dict[str, float]]:
    """The hits' scores by passage, for each question and side."""
    found: dict[tuple[Any, ...], dict[str, float]] = defaultdict(dict)
    with proponent.open(folder / "lake") as lake:
        for row in lake.sql(HITS).to_dicts():
            *question, passage, score = row.values()
            found[tuple(question)][passage] = score
    return found


def test_trackstar_finds_the_stating_passage_where_the_dot_product_does_not(demo_folder: Path) -> None:
    lines = (demo_folder / "output.txt").read_text("utf-8").splitlines()
    whole, subset, plain = [found.groups() for found in map(LINE.search, lines) if found]
    assert (whole[0], subset[0], plain[0]) == ("TrackStar", "TrackStar", "gradient dot product")
    assert int(subset[1].replace(",", "")) <= 500
    assert subset[1] == plain[1]
    assert int(whole[3]) >= 20
    assert float(whole[2]) >= 95
    assert float(subset[2]) >= 95
    assert float(subset[4]) > float(plain[4]) + 0.1


def test_demo_shows_filters_by_source_date_and_entity(demo_folder: Path) -> None:
    printed = (demo_folder / "output.txt").read_text("utf-8")
    assert "GROUP BY source" in printed
    assert "published >= DATE" in printed
    assert "list_contains(entities" in printed
    assert "recall@10" in printed


def test_a_second_demo_changes_nothing(demo_folder: Path) -> None:
    before = content(demo_folder)
    with proponent.open(demo_folder / "lake") as lake:
        status, runs = lake.status(), lake.sql("SELECT count(*) AS n FROM runs").to_dicts()
    reports = [(demo_folder / name).read_bytes() for name in ("report.html", "report.md")]
    run(demo_folder, echo=lambda _text: None)
    with proponent.open(demo_folder / "lake") as lake:
        after = lake.status()
        assert lake.sql("SELECT count(*) AS n FROM runs").to_dicts() == runs
    for told in (after, status):
        assert told.pop("bytes") > 0
    assert after == status
    assert content(demo_folder) == before
    assert [(demo_folder / name).read_bytes() for name in ("report.html", "report.md")] == reports


def killed(folder: Path, *, after: str | None, seconds: float) -> bool:
    """Start the demonstration and kill it some time after a line; return whether it was still running."""
    command = [sys.executable, "-m", "proponent", "demo", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        if after is not None:
            for line in process.stdout:
                if after in line:
                    break
        time.sleep(seconds)
        alive = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.stdout.read()
    return alive


def test_a_demo_that_was_killed_is_finished_by_the_next(tmp_path: Path, demo_folder: Path) -> None:
    folder = tmp_path / "demo"
    killed(folder, after="proponent ingest", seconds=1.5)
    killed(folder, after="proponent encode", seconds=4)
    run(folder, echo=lambda _text: None)
    require_same(folder, demo_folder)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
def test_a_demo_survives_kills_at_random_moments(tmp_path: Path, demo_folder: Path, seed: int) -> None:
    folder = tmp_path / "demo"
    draw = random.Random(seed)
    for _ in range(6):
        killed(folder, after=None, seconds=draw.uniform(0.2, 40))
    run(folder, echo=lambda _text: None)
    require_same(folder, demo_folder)
