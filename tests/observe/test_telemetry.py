"""Spans reach a receiver as one trace, numbers reach Prometheus, and both cost nothing where nobody wants them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import proponent
from proponent.observe import events
from proponent.observe.metrics import Gauge, Metrics
from proponent.schema.errors import SettingsError
from proponent.schema.settings import MetricsSettings
from proponent.store.readings import readings

Run = Callable[..., Any]
ENCODE = ("--blocks", 1, "--side", 8, "--moments", "none", "--sample", 20)


@pytest.mark.full
def test_the_spans_of_a_command_and_of_its_workers_are_one_trace(
    receiver: Any, corpus: Path, checkpoint_dir: Path, proponent_command: Run, tmp_path: Path
) -> None:
    lake, given = tmp_path / "lake", {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    assert proponent_command("init", lake).returncode == 0
    assert proponent_command("model", "add", lake, checkpoint_dir, "--name", "tiny").returncode == 0
    done = proponent_command("ingest", lake, corpus, "--corpus", "c", "--workers", 2, "-q", **given)
    assert (done.returncode, done.stderr) == (0, "")
    spans = {span.span_id: span for span in receiver.spans}
    assert len({span.trace_id for span in spans.values()}) == 1
    [run] = [span for span in spans.values() if span.name == "proponent.run"]
    units = [span for span in spans.values() if span.name == "proponent.unit"]
    commits = [span for span in spans.values() if span.name == "proponent.commit"]
    assert units
    assert commits
    assert {span.parent_span_id for span in units + commits} == {run.span_id}
    told = {one.key: one.value for one in units[0].attributes}
    assert told["proponent.run"].string_value
    assert {"proponent.unit", "proponent.lake", "proponent.worker"} <= told.keys()
    assert receiver.services == {"proponent"}

    receiver.spans.clear()
    assert proponent_command("encode", lake, *ENCODE, "-q", **given).returncode == 0
    asked = ("trace", lake, "--prompt", "Zanzibar has", "--target", " quokkas", "--method", "logra", "-k", 3)
    done = proponent_command(*asked, "--format", "json", "-q", **given)
    assert done.returncode == 0, done.stderr
    with proponent.open(lake) as opened:
        [row] = opened.sql("SELECT trace_id FROM traces").to_dicts()
    report = ("report", lake, row["trace_id"], "-o", tmp_path / "r.html", "-q")
    assert proponent_command(*report, **given).returncode == 0
    names = {span.name for span in receiver.spans}
    assert {f"proponent.{name}" for name in ("run", "unit", "model", "scan", "trace", "commit", "report")} <= names
    everything = b"".join(span.SerializeToString() for span in receiver.spans)
    assert not [word for word in (b"Zanzibar", b"quokkas", b"Xylophone") if word in everything]


def test_an_error_is_told_by_its_class_alone(receiver: Any, tmp_path: Path) -> None:
    script = """
import sys
from proponent.observe import telemetry
from proponent.observe.events import span
telemetry.set_up()
try:
    with span("run", kind="test"):
        raise ValueError("Zanzibar has quokkas")
except ValueError:
    telemetry.flush()
"""
    env = os.environ | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.url}/v1/traces"}
    subprocess.run([sys.executable, "-c", script], env=env, check=True)
    [span] = receiver.spans
    assert span.status.message == "ValueError"
    assert b"Zanzibar" not in span.SerializeToString()


def test_a_receiver_that_is_away_changes_nothing(proponent_command: Run, tmp_path: Path) -> None:
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    done = proponent_command("init", tmp_path / "lake", **given)
    assert (done.returncode, done.stderr) == (0, f"made lake {tmp_path / 'lake'}\n")


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_the_standard_variables_turn_it_off(
    receiver: Any, proponent_command: Run, tmp_path: Path, off: dict[str, str]
) -> None:
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url} | off
    assert proponent_command("init", tmp_path / "lake", **given).returncode == 0
    assert receiver.spans == []


def test_without_a_watcher_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_watchers", [])
    assert events.span("run", kind="x") is events.span("unit"), "one object for all, which does nothing"
    events.count("traces")


@pytest.mark.parametrize("missing", ["opentelemetry", "prometheus_client"])
def test_without_the_extra_commands_work_and_metrics_say_what_to_install(tmp_path: Path, missing: str) -> None:
    script = f"""
import sys
sys.modules[{missing!r}] = None
from proponent.cli import main
sys.argv[1:] = {["init", str(tmp_path / "lake")]!r}
try:
    main()
except SystemExit as end:
    assert not end.code
if {missing!r} == "prometheus_client":
    sys.argv[1:] = {["work", str(tmp_path / "lake"), "--metrics", "0"]!r}
    main()
"""
    env = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    if missing == "prometheus_client":
        assert done.stderr.endswith("error: metrics need prometheus_client; pip install 'proponent[telemetry]'\n")
    else:
        assert done.returncode == 0, done.stderr


def values(text: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def asked(address: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return str(answer.read().decode())


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "proponent", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def address_in(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if (found := re.search(r"http://\S+", line)) is not None:
            return found[0]
    pytest.fail("no address came")


SERVED = """
import sys
import urllib.request

import proponent
from proponent.observe.metrics import serving
from proponent.schema.settings import MetricsSettings
from proponent.store.readings import readings

lake_path, corpus, tokenizer = sys.argv[1:]
with proponent.open(lake_path) as lake:
    with serving(MetricsSettings.of_address("0"), lambda: readings(lake.store.catalog)) as port:
        lake.ingest(corpus, corpus="c", workers=2, tokenizer=tokenizer, max_tokens=40)
        print(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
"""


@pytest.mark.full
def test_the_counts_of_a_command_and_of_its_workers_are_added_up(
    corpus: Path, proponent_command: Run, tmp_path: Path, checkpoint_dir: Path
) -> None:
    assert proponent_command("init", tmp_path / "lake").returncode == 0
    arguments = (tmp_path / "lake", corpus, checkpoint_dir)
    text = subprocess.check_output([sys.executable, "-c", SERVED, *map(str, arguments)], text=True)
    seen = values(text)
    assert seen["proponent_catalog_up"] == 1
    assert seen['proponent_documents_total{outcome="added"}'] == 40
    assert seen["proponent_rejects_total"] == 1
    assert seen["proponent_passages_total"] >= 40
    assert seen['proponent_tokens_total{work="ingest"}'] > 0
    assert seen['proponent_units_total{outcome="written"}'] == seen['proponent_unit_seconds_count{status="done"}'] > 0
    assert seen['proponent_commit_seconds_count{status="done"}'] == 1, "this process counts as its workers do"
    assert seen["proponent_snapshot"] == 2
    if shutil.which("promtool"):
        command = ["promtool", "check", "metrics"]
        found = subprocess.run(command, input=text, text=True, check=False, capture_output=True)
        assert found.returncode == 0, found.stdout + found.stderr


def test_the_explorer_has_metrics_behind_its_guards(tmp_path: Path, proponent_command: Run) -> None:
    assert proponent_command("init", tmp_path / "lake").returncode == 0
    process = start("serve", tmp_path / "lake", "--port", 0, "--no-open", "--token", "a-long-enough-token")
    try:
        address = f"{address_in(process)}metrics"
        with pytest.raises(urllib.error.HTTPError) as refused:
            asked(address)
        assert refused.value.code == 401
        refused.value.close()
        with pytest.raises(urllib.error.HTTPError) as refused:
            asked(address, Authorization="Bearer a-long-enough-token", Host="evil.example.org")
        assert refused.value.code == 403
        refused.value.close()
        told = asked(address, Authorization="Bearer a-long-enough-token")
        assert values(told)["proponent_snapshot"] == 1
        assert values(told)["proponent_traces_total"] == 0
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_a_catalog_that_is_away_hides_no_counts() -> None:
    def away() -> list[Gauge]:
        raise OSError("the server is away")

    metrics = Metrics(away)
    try:
        events.count("traces", 3)
        told = values(metrics.text()[0].decode())
        assert told["proponent_catalog_up"] == 0
        assert told["proponent_traces_total"] == 3
    finally:
        metrics.close()


def test_what_the_catalog_says_is_read_each_time(tmp_path: Path) -> None:
    with proponent.init(tmp_path / "lake") as lake:
        found = {(gauge.name, *gauge.labels.values()): gauge.value for gauge in readings(lake.store.catalog)}
        assert found["snapshot",] == 1
        assert found["units_in_state", "leased"] == 0
        assert found["runs_at_work",] == 0


@pytest.mark.full
def test_prometheus_reads_the_exposition(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool, of the package prometheus")
    with proponent.init(tmp_path / "lake") as lake:
        metrics = Metrics(lambda: readings(lake.store.catalog))
        try:
            with events.span("scan"):
                events.count("units", outcome="written")
            text = metrics.text()[0].decode()
        finally:
            metrics.close()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_an_address_is_this_machine_unless_it_says_otherwise() -> None:
    assert MetricsSettings.of_address("9464") == MetricsSettings("127.0.0.1", 9464)
    assert MetricsSettings.of_address(":9464") == MetricsSettings("127.0.0.1", 9464)
    assert MetricsSettings.of_address("[::1]:0") == MetricsSettings("::1", 0)
    assert MetricsSettings.of_address("0.0.0.0:1") == MetricsSettings("0.0.0.0", 1)
    for wrong in ("host", "host:", "host:99999", ""):
        with pytest.raises(SettingsError):
            MetricsSettings.of_address(wrong)
