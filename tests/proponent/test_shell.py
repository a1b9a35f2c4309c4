"""The SQL shell: statements from a pipe, and a person at a terminal."""

import os
import re
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from pexpect import TIMEOUT
from pexpect.fdpexpect import fdspawn
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

import proponent
from proponent.cli import cli, shell
from proponent.cli.prompt import _Colours, _Completer, history_file
from proponent.cli.shell import is_blank, is_complete, split
from proponent.query.examples import examples_text

CTRL_C, CTRL_D = "\x03", "\x04"
PIECES = st.lists(st.sampled_from(["SELECT", "';'", ";", "--;\n", "/*;*/", "'", '"', "$$", "é🙂", "\n", " ", "\x00"]))
LONG = "SELECT count(*) FROM range(10000000000) a, range(100000) b WHERE a.range + b.range = -1;"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shell")
    rows = [f'{{"id": {n}, "text": "Text {n}.", "source": "\\u001b[31mred"}}\n' for n in range(7)]
    (folder / "rows.jsonl").write_text("".join(rows), "utf-8")
    with proponent.init(folder / "lake") as made:
        made.ingest(folder / "rows.jsonl", corpus="c")
    return folder / "lake"


@pytest.fixture
def pipe(lake: Path) -> Callable[..., Result]:
    def call(text: str, *options: str) -> Result:
        return CliRunner().invoke(cli, ["sql", str(lake), *options], input=text)

    return call


def test_statements_end_where_duckdb_says() -> None:
    text = "SELECT ';' -- ;\n, \";é\" /* ; */ ;\n\n;-- x\nSELECT $$;$$;  SELECT 'open ;"
    statements, rest = split(text)
    assert [(one.text.split()[-1], one.line) for one in statements] == [("*/", 1), ("$$;$$", 5)]
    assert rest.strip() == "SELECT 'open ;"
    assert is_blank("-- only ;\n/* ; */ ")
    assert [is_complete(text) for text in ("SELECT 1", "SELECT 1; -- x", ".help", "", "SELECT ';", "SELECT 1; x")] == [
        False, True, True, True, False, False,
    ]  # fmt: skip


@given(PIECES)
def test_what_is_split_is_whole(pieces: list[str]) -> None:
    statements, rest = split("".join(pieces))
    for one in statements:
        assert split(f"{one.text}\n;") == ([(one.text, one.text.count("\n", 0, _first(one.text)) + 1)], "")
        assert not is_blank(one.text)
    assert split(rest)[0] == []


def _first(text: str) -> int:
    """Where a text begins after space and comments."""
    comment = re.match(r"(\s|--[^\n]*(\n|\Z)|/\*.*?\*/)*", text, re.DOTALL)
    return comment.end() if comment else 0


@given(PIECES)
def test_colours_change_no_letter(pieces: list[str]) -> None:
    text = "".join(pieces)
    line = _Colours().lex_document(Document(text))
    shown = ["".join(piece[1] for piece in line(number)) for number in range(text.count("\n") + 1)]
    assert "\n".join(shown) == text


def test_a_pipe_runs_each_statement_in_order(pipe: Callable[..., Result]) -> None:
    done = pipe(
        ".mode csv\nSELECT count(*) AS n\nFROM documents;SELECT 'a;b' AS t; -- the end;\n.mode json\nSELECT 1 AS x"
    )
    assert (done.exit_code, done.stdout) == (0, 'n\n7\nt\na;b\n[\n  {\n    "x": 1\n  }\n]\n')


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SELECT 1;\n\nSELECT\nnope;\nSELECT 2;\n", "line 3: Binder Error"),
        ("-- a comment;\nSELECT 1; SELECT 1;\nDROP VIEW documents;\n", "line 3: only SELECT"),
        ("SELECT 1;\n.mode nope\n", "line 2: no mode 'nope'"),
        ("SELECT 1;\n\n.schema document\n", "line 3: no relation 'document'; did you mean documents?"),
        ("SELECT 1;\nSELECT 'never closed\n;\n", "line 2: Parser Error"),
        ("SELECT 1;\n.nothing\n", "line 2: no command '.nothing'"),
        ("SELECT 1;\n.output /nowhere/x.csv\n", "line 2: /nowhere does not exist"),
        ("SELECT 1;\n.output x.unknown\n", "line 2: x.unknown has no suffix"),
    ],
)
def test_the_first_error_ends_a_script_and_names_its_line(pipe: Callable[..., Result], text: str, says: str) -> None:
    done = pipe(text, "--format", "csv")
    assert done.exit_code != 0
    assert str(done.exception).startswith(says)
    assert done.stdout.startswith("1\n1\n")
    assert "2\n" not in done.stdout


def test_nothing_and_quit_are_no_errors(pipe: Callable[..., Result]) -> None:
    assert [pipe(text).exit_code for text in ("", "\n-- nothing\n", ".quit\nSELECT nope;\n")] == [0, 0, 0]


def test_output_takes_the_next_result(pipe: Callable[..., Result], tmp_path: Path) -> None:
    done = pipe(f".output {tmp_path / 'rows.jsonl'}\nSELECT 1 AS n;\nSELECT 2 AS n;\n", "--format", "csv")
    assert (tmp_path / "rows.jsonl").read_text() == '{"n": 1}\n'
    assert done.stdout == "n\n2\n"


def test_lines_show_a_value_each_and_cannot_steer_the_terminal(pipe: Callable[..., Result]) -> None:
    done = pipe("SELECT doc_key, source FROM documents ORDER BY doc_key LIMIT 2;", "--format", "table")
    assert "\x1b" not in done.stdout
    lines = pipe(".mode line\nSELECT doc_key, source FROM documents ORDER BY doc_key LIMIT 2;").stdout
    assert lines == "doc_key = 0\n source = �[31mred\n\ndoc_key = 1\n source = �[31mred\n"


def test_one_call_lists_relations_columns_and_examples(lake: Path) -> None:
    def call(query: str) -> str:
        return CliRunner().invoke(cli, ["sql", str(lake), query, "--format", "jsonl"], catch_exceptions=False).stdout

    assert '{"relation": "influence", "comment": "Hits with' in call(".tables")
    assert call(".schema HITS").startswith('{"relation": "hits", "column": "trace_id", "type": "VARCHAR", "comment": "')
    assert len(call(".schema").splitlines()) > len(call(".schema influence").splitlines()) > 20
    assert "FROM influence" in call(".examples")


def test_every_example_runs_and_is_explained(lake: Path) -> None:
    statements = split(examples_text())[0]
    assert len(statements) >= 5
    with proponent.open(lake) as opened:
        for statement in statements:
            assert statement.text.startswith("-- ")
            opened.sql(statement.text)


def test_a_terminal_shows_the_first_rows_of_many(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with proponent.open(lake) as opened:
        shell.Shell(opened.stream, mode="line", terminal=True).run("SELECT range AS n FROM range(100000000);")
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "n = 999"
    assert "the first 1,000 rows" in told.err


def completions(lake: Path, text: str) -> list[str]:
    with proponent.open(lake) as opened:
        return [one.text for one in _Completer(opened.stream).get_completions(Document(text), CompleteEvent())]


@pytest.mark.parametrize(
    ("text", "has", "has_not"),
    [
        ("SELECT * FROM docu", "documents", "document_id"),
        ("SELECT * FROM ", "influence", "SELECT"),
        ("SELECT publ", "published", "publications("),
        ("SELECT influence.sco", "influence.score", "score"),
        ("SELECT * FROM hits AS h JOIN passages p USING (passage_id) WHERE p.te", "p.text", "p.rank"),
        ("SELECT * FROM hits AS h JOIN passages p USING (passage_id) WHERE h.ra", "h.rank", "h.text"),
        ("SELECT list_cont", "list_contains(", "list_concat("),
        ("SEL", "SELECT", "select"),
        ("sel", "select", "SELECT"),
        (".mo", ".mode", ".help"),
        (".mode js", "jsonl", "csv"),
        (".schema hi", "hits", "having"),
    ],
)
def test_completion_knows_what_may_come(lake: Path, text: str, has: str, has_not: str) -> None:
    found = completions(lake, text)
    assert has in found
    assert has_not not in found


def test_history_is_in_the_users_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_file() == tmp_path / "proponent" / "sql_history"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # which the specification says to take no notice of
    assert history_file() == Path.home() / ".local" / "state" / "proponent" / "sql_history"


@pytest.fixture
def terminal(lake: Path, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Start shells in a terminal of 120 by 40 that keep their history in the test's folder."""
    # What forks in this process would copy Lance's threads; so the new process itself takes the terminal for its own.
    script = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "os.execv(sys.executable, [sys.executable, '-m', 'proponent', 'sql', sys.argv[1]])"
    )
    environment = dict(os.environ, XDG_STATE_HOME=str(tmp_path), TERM="xterm", PROMPT_TOOLKIT_NO_CPR="1")
    with ExitStack() as started:

        def start() -> Any:
            mine, its = os.openpty()
            termios.tcsetwinsize(mine, (40, 120))
            process = subprocess.Popen(
                [sys.executable, "-c", script, str(lake)],
                stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True,
            )  # fmt: skip
            started.callback(process.wait)
            started.callback(process.kill)
            os.close(its)
            person = fdspawn(mine, encoding="utf-8", timeout=30)
            started.callback(person.close)
            person.process = process
            person.expect("sql>")
            return person

        yield start


def test_a_person_asks_interrupts_completes_and_comes_back(terminal: Callable[[], Any], tmp_path: Path) -> None:
    first = terminal()
    first.sendline("SELECT 40 +")
    first.expect(r"\.\.\.>")
    first.sendline("2 AS answer;")
    first.expect(r"\b42\b")

    first.sendline(LONG)
    first.expect("2004l")  # the prompt is done with the line, and hands the terminal over
    for _ in range(100):
        first.send(CTRL_C)
        if first.expect([TIMEOUT, "interrupted"], timeout=0.3):
            break

    first.send("SELECT nonsense")
    first.expect("nonsense")
    first.send(CTRL_C)  # clears what is typed
    first.sendline("SELECT 'al' || 'ive';")
    first.expect("alive")
    first.sendline("FROM influence;")
    first.expect("no rows")

    first.send("SELECT 100 + count(*) FROM documen\t")
    first.expect("ts")  # what was missing
    first.sendline(";")
    first.expect(r"\b107\b")

    first.sendline("SELECT nope;")
    first.expect("error: Binder Error")
    first.sendline("FROM documents LIMIT 1;")  # too many columns for a table
    first.expect(r"doc_key = \d")
    first.sendline(".mode csv")
    first.sendline("SELECT source, 6 * 7 FROM documents LIMIT 1;")
    first.expect(re.escape("�[31mred,42"))
    first.expect("sql>")
    first.send(CTRL_D)
    assert first.process.wait(60) == 0

    history = tmp_path / "proponent" / "sql_history"
    assert (history.stat().st_mode & 0o777, history.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    second = terminal()
    for _ in range(100):
        second.send("\x1b[A")  # up, which finds nothing until the history is read
        if second.expect([TIMEOUT, "LIMIT"], timeout=1):
            break
    second.send("\r")
    second.expect(r"\b42\b")
    second.expect("sql>")
    second.sendline(".quit")
    assert second.process.wait(60) == 0
