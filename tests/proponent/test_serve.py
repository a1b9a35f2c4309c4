"""`proponent serve`: it says where it is, answers there, and ends when somebody ends it."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from proponent import init
from proponent.cli import cli
from proponent.schema.errors import InputError, LakeNotFoundError, SettingsError


@pytest.fixture(scope="module")
def empty_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serve") / "lake"
    init(path).close()
    return path


def refused(*arguments: object) -> BaseException | None:
    return CliRunner().invoke(cli, ["serve", *map(str, arguments), "--no-open"]).exception


def test_it_answers_and_ends_cleanly(empty_lake: Path) -> None:
    command = [sys.executable, "-m", "proponent", "serve", str(empty_lake), "--port", "0", "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        address = said.split(" is at ")[1].split()[0]
        with urllib.request.urlopen(f"{address}api/status", timeout=30) as answer:  # an empty lake has pages, too
            assert json.load(answer)["traces"] == 0
        for page in ("", "sql", "status"):
            with urllib.request.urlopen(address + page, timeout=30) as answer:
                assert answer.status == 200
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=30)
    assert (process.returncode, out, rest) == (0, "", "ended\n")


@pytest.mark.full
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_file_is_shown_without_a_lake_and_nothing_is_left_of_it(tmp_path: Path, end: signal.Signals) -> None:
    record = {"inputs_plaintext": "Peru. Capital:", "targets_plaintext": " Lima", "proponents": ["a"]}
    file = tmp_path / "results.jsonl"
    file.write_text(json.dumps(record | {"proponent_scores": [1], "proponent_correct": [True]}) + "\n", "utf-8")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "proponent", "serve", "--file", str(file), "--port", "0", "--no-open"]
    environment = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if " is at " in line)
        address = said.split(" is at ")[1].split()[0]
        assert address.endswith("/queries")
        with urllib.request.urlopen(address.replace("/queries", "/api/queries"), timeout=30) as answer:
            [means] = json.load(answer)["means"]
        with urllib.request.urlopen(address.removesuffix("queries"), timeout=30) as answer:
            assert "without a model that could be asked" in answer.read().decode()
        process.send_signal(end)
        process.communicate(timeout=60)
    assert (means["method"], means["mrr"]) == ("imported:results", 1.0)
    assert list(temporary.iterdir()) == []


def test_a_lake_or_files_are_named(empty_lake: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{\n", "utf-8")
    for arguments in ((), (empty_lake, "--file", broken)):
        result = CliRunner().invoke(cli, ["serve", *map(str, arguments), "--no-open"])
        assert result.exit_code == 2
        assert "name a LAKE, or files of results with --file" in result.output
    error = refused("--file", broken)
    assert isinstance(error, InputError)
    assert "broken.jsonl:1: is no JSON" in str(error)
    assert "has no results.json" in str(refused(empty_lake, "--evaluation", tmp_path))


def test_a_port_that_is_taken_is_named(empty_lake: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = refused(empty_lake, "--port", port)
    assert isinstance(error, InputError)
    assert f"port {port} is taken" in str(error)


def test_what_cannot_be_served_is_refused(empty_lake: Path, tmp_path: Path) -> None:
    assert isinstance(refused(tmp_path / "none"), LakeNotFoundError)
    exposed = refused(empty_lake, "--host", "0.0.0.0")
    assert isinstance(exposed, SettingsError)
    assert "--expose" in str(exposed)
    assert isinstance(refused(empty_lake, "--expose"), SettingsError)
    assert isinstance(refused(empty_lake, "--host", "192.0.2.1", "--expose", "--token", "x" * 12), InputError)


def test_without_the_extra_it_says_how_to_get_it(empty_lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    error = refused(empty_lake)
    assert isinstance(error, InputError)
    assert "pip install 'proponent[serve]'" in str(error)


def test_a_page_does_not_wait_for_word_that_its_headers_have_come() -> None:
    from proponent.cli.serve import _listen
    from proponent.schema.settings import ServeSettings

    # asyncio turns Nagle's algorithm off on sockets of this protocol alone; the others' bodies come 40 ms later.
    with _listen(ServeSettings(port=0)) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP
