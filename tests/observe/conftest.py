"""Commands as processes of their own, with logs, spans and metrics, and a receiver of spans."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-may-read",
    "PROPONENT_TOKEN": "the-token-of-the-explorer",
    "PGPASSWORD": "the-password-of-the-catalog",
}
QUIET = {"PROPONENT_LOG", "TRACEPARENT", "PROMETHEUS_MULTIPROC_DIR"}


@pytest.fixture(scope="session")
def secrets() -> dict[str, str]:
    return dict(SECRETS)


@pytest.fixture(scope="session")
def proponent_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command of proponent as people do."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if name not in QUIET} | SECRETS | environment
        command = [sys.executable, "-m", "proponent", *map(str, arguments)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)

    return run


@pytest.fixture(scope="session")
def write_corpus() -> Callable[[Path], Path]:
    """Write rows with words that nothing but the corpus has, one of which is rejected."""

    def write(folder: Path) -> Path:
        texts = (f"Zanzibar has {n} quokkas in its garden." for n in range(40))
        rows = [{"id": f"key-{n}", "title": "Xylophone", "text": text} for n, text in enumerate(texts)]
        lines = [json.dumps(row) for row in rows] + ['{"id": "bad", "title": "Xylophone"}']
        folder.mkdir()
        for n in range(4):
            (folder / f"{n}.jsonl").write_text("\n".join(lines[n::4]) + "\n", "utf-8")
        return folder

    return write


@pytest.fixture
def corpus(tmp_path: Path, write_corpus: Callable[[Path], Path]) -> Path:
    return write_corpus(tmp_path / "corpus")


class Receiver:
    """A receiver of traces over OTLP/HTTP, as a collector is one."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.spans: list[Any] = []
        self.services: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                import gzip

                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    named = {one.key: one.value.string_value for one in resource.resource.attributes}
                    receiver.services.add(named["service.name"])
                    for scope in resource.scope_spans:
                        receiver.spans.extend(scope.spans)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()
