"""How far a run is, on a terminal and elsewhere."""

import sys

import pytest

from proponent.cli import progress
from proponent.cli.progress import run_progress
from proponent.ingest.progress import Progress

HALF = Progress("reading", 50, 100, {"documents": 1200, "passages": 3400, "tokens": 0, "rejected": 0})


def test_elsewhere_it_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_progress(quiet=False) as tell:
        tell(HALF)
        assert capsys.readouterr().err == "", "the first minute says nothing"
        monkeypatch.setattr(progress, "_LINE_EVERY_S", 0)
        tell(HALF)
        tell(Progress("encoding", 0, 0))
    first, second = capsys.readouterr().err.splitlines()
    assert first == "reading, 50%, about 0 min left: 1,200 documents, 3,400 passages"
    assert second == "encoding"


def test_tokens_are_told_by_the_second(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0)
    with run_progress(quiet=False) as tell:
        tell(Progress("encoding", 0, 100, {"tokens": 1000}))
        clock[0] += 10
        tell(Progress("encoding", 20, 100, {"tokens": 6000}))
    assert capsys.readouterr().err.splitlines()[1] == "encoding, 20%, about 1 min left: 500 tokens/s"


def test_on_a_terminal_it_is_a_bar_with_the_counts_below(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with run_progress(quiet=False) as tell:
        tell(HALF)
    shown = capsys.readouterr().err
    assert "reading" in shown
    assert "50%" in shown
    assert "1,200 documents, 3,400 passages" in shown


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0)
    with run_progress(quiet=True) as tell:
        tell(HALF)
    assert capsys.readouterr().err == ""
