"""Logs say what happens to which unit of which run, and nothing that is nobody's business."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import update

import proponent
from proponent import cli as command_line
from proponent.cli import cli
from proponent.observe import logs
from proponent.observe.events import always, around, tell
from proponent.schema.catalog import Unit, now
from proponent.schema.errors import LeaseLostError, SettingsError
from proponent.schema.settings import LOG_FORMS, LOG_LEVELS, LogSettings
from proponent.store.runs import recorded_run
from proponent.store.units import add_units, take_unit

Run = Callable[..., Any]


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def encoded(
    tmp_path_factory: pytest.TempPathFactory,
    write_corpus: Callable[[Path], Path],
    checkpoint_dir: Path,
    proponent_command: Run,
) -> list[dict[str, Any]]:
    """The records of an ingest and an encoding with two workers each, a trace and an error."""
    tmp_path = tmp_path_factory.mktemp("logs")
    corpus = write_corpus(tmp_path / "corpus")
    lake, log = tmp_path / "lake", tmp_path / "log"
    kept = ("--log-format", "json", "--log-file", log, "--log-level", "debug")
    sql = "SELECT 'Zanzibar' FROM nowhere"
    for command, code in (
        (("init", lake, "-q"), 0),
        (("model", "add", lake, checkpoint_dir, "--name", "tiny", "-q"), 0),
        (("ingest", lake, corpus, "--corpus", "c", "--workers", 2, "-q"), 0),
        (("encode", lake, "--blocks", 1, "--side", 8, "--moments", "none", "--sample", 20, "--workers", 2, "-q"), 0),
        (("trace", lake, "--prompt", "Zanzibar has", "--target", " quokkas", "--method", "logra", "-q"), 0),
        (("sql", lake, sql), 1),
    ):
        done = proponent_command(*kept, *command)
        assert done.returncode == code, done.stderr
    return records(log.read_text("utf-8"))


@pytest.mark.full
def test_records_say_what_happened_to_which_unit_of_which_run(encoded: list[dict[str, Any]]) -> None:
    told = {record["message"] for record in encoded}
    assert {"run begun", "run done", "unit leased", "unit written", "snapshot published", "command failed"} <= told
    for record in encoded:
        assert {"time", "level", "logger", "message", "machine", "pid"} <= record.keys()
    units = [record for record in encoded if record["message"] == "unit leased"]
    assert all({"lake", "run", "unit", "worker", "attempt"} <= record.keys() for record in units)
    runs = {record["run"]: record["kind"] for record in encoded if record["message"] == "run begun"}
    assert {runs[record["run"]] for record in units} == {"ingest", "encode"}
    assert {record["pid"] for record in units}.isdisjoint(
        {one["pid"] for one in encoded if one["message"] == "run begun"}
    )
    snapshots = [record["snapshot"] for record in encoded if record["message"] == "snapshot published"]
    assert snapshots == sorted(snapshots)


@pytest.mark.full
def test_no_text_of_the_corpus_and_no_secret_is_logged(encoded: list[dict[str, Any]], secrets: dict[str, str]) -> None:
    for record in encoded:
        if record["message"] == "command failed":
            continue  # it says again what stderr says, to whom typed it
        for word in ("Zanzibar", "quokkas", "Xylophone", "key-7"):
            assert word not in json.dumps(record, ensure_ascii=False)
    everything = json.dumps(encoded)
    assert not [secret for secret in secrets.values() if secret in everything]


def test_secrets_are_struck_out_wherever_they_come_from(
    proponent_command: Run, tmp_path: Path, secrets: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
        assert value not in logs.without_secrets(f"an error of a library: {value}!")
    assert (
        logs.without_secrets("postgresql://me:secret@host/db and s3://b/x")
        == "postgresql://me:***@host/db and s3://b/x"
    )
    logs.hide("what was given")
    assert logs.without_secrets("it is what was given, is it") == "it is ***, is it"
    url = "postgresql+psycopg://me:hunter2hunter2@127.0.0.1:1/none"
    done = proponent_command("--log-format", "json", "init", tmp_path / "lake", "--catalog", url)
    assert done.returncode == 1
    [record] = records(done.stderr)
    assert record["message"] == "command failed"
    assert "hunter2" not in done.stderr + done.stdout


def test_json_alone_goes_to_stderr_and_a_file_leaves_stderr_to_people(proponent_command: Run, tmp_path: Path) -> None:
    done = proponent_command("--log-format", "json", "status", tmp_path / "none")
    assert [record["kind"] for record in records(done.stderr)] == ["LakeNotFoundError"]
    done = proponent_command("--log-file", tmp_path / "log", "status", tmp_path / "none")
    assert done.stderr.startswith("error: ")
    assert "ERROR proponent.cli: command failed kind=LakeNotFoundError" in (tmp_path / "log").read_text()
    done = proponent_command("status", tmp_path / "none", PROPONENT_LOG_FORMAT="json")
    assert records(done.stderr)


def test_by_default_stderr_is_what_it_was(proponent_command: Run, tmp_path: Path, corpus: Path) -> None:
    assert proponent_command("init", tmp_path / "lake").stderr == f"made lake {tmp_path / 'lake'}\n"
    done = proponent_command("ingest", tmp_path / "lake", corpus, "--corpus", "c", "--workers", 2)
    assert done.stderr.splitlines()[0].startswith("read 41 rows: 40 added")
    assert "unit" not in done.stderr
    done = proponent_command("-v", "ingest", tmp_path / "lake", corpus, "--corpus", "d", "--workers", 2)
    assert "INFO: unit leased lake=" in done.stderr, "workers too"


def test_a_log_that_cannot_be_written_is_one_line(proponent_command: Run, tmp_path: Path) -> None:
    done = proponent_command("--log-file", tmp_path / "none" / "log", "init", tmp_path / "lake")
    assert (done.returncode, done.stderr) == (
        1,
        f"error: {tmp_path}/none/log cannot be written: No such file or directory\n",
    )


def test_a_worker_that_dies_and_a_late_unit_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with proponent.init(tmp_path / "lake") as lake, caplog.at_level(logging.INFO, "proponent"):
        catalog = lake.store.catalog
        with recorded_run(catalog, "encode", {}) as run:
            add_units(catalog, run.run_id, [{"start": 0, "stop": 1}])
            late = take_unit(catalog, run.run_id)
            assert late is not None
            with catalog.write() as session:
                session.execute(update(Unit).values(host="another/boot/pid", expires_at=now()))
            held = take_unit(catalog, run.run_id)
            assert held is not None
            with pytest.raises(LeaseLostError):
                late.finish({})
            held.hand_back()
    fields = {record.getMessage(): getattr(record, "fields", {}) for record in caplog.records}
    taken = fields["unit taken over from a worker that died"]
    assert (taken["run"], taken["unit"], taken["from_machine"]) == (run.run_id, 0, "another")
    assert fields["late unit refused"]["unit"] == 0
    assert "unit handed back" in fields


def test_fields_of_the_process_and_of_the_block_are_told(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("proponent.test")
    with caplog.at_level(logging.INFO, "proponent"):
        always(worker=7)
        with around(run="r"):
            tell(log, "inside", unit=1)
        tell(log, "outside")
        always(worker=None)
    inside, outside = (record.fields for record in caplog.records)  # type: ignore[attr-defined]
    assert inside == {"worker": 7, "run": "r", "unit": 1}
    assert outside == {"worker": 7}


def test_settings_reach_children_as_they_are() -> None:
    settings = LogSettings(form="json", level="debug", file="/tmp/x")
    assert LogSettings.from_json(settings.to_json()) == settings
    with pytest.raises(SettingsError, match="must be one of text, json"):
        LogSettings(form="xml")


def test_the_command_line_offers_what_settings_take() -> None:
    assert (command_line.LOG_FORMS, command_line.LOG_LEVELS) == (LOG_FORMS, LOG_LEVELS)


def test_help_names_the_options() -> None:
    told = CliRunner().invoke(cli, ["--help"]).output
    assert all(option in told for option in ("--log-format", "--log-file", "--log-level"))
