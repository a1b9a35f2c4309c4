"""Lakes in an object store, and a network that a test can slow down, cut and make fail."""

import asyncio
import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proponent.lake import Lake

RAY_NODES = Path(__file__).parent / "ray_nodes"
_FAILED = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_METHODS = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ")


class Proxy:
    """A port that leads to a server, through a network as bad as the test wants it.

    `delay_s` holds up every piece of what goes to the server; `fail(n)` answers the next n requests, or all, with 503,
    `fail_every` every so many;
    `cut()` ends all connections and takes no new ones; `stall()` keeps them, and what they send, until `heal()`. When a
    piece that holds `stall_at` is on its way to the server, the network of `stalls_with` stalls by itself.
    """

    def __init__(self, target: tuple[str, int] | str) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._is_cut = False
        self._failing = 0
        self.fail_every = 0
        self.delay_s = 0.0
        self.stall_at: bytes | None = None
        self.stalls_with: list[Proxy] = [self]
        self.stalled = threading.Event()
        self.requests = 0
        self.failed = 0
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._server = server.result()
        self.port: int = self._server.sockets[0].getsockname()[1]

    def fail(self, n: int = 1 << 30) -> None:
        self._failing = n

    def cut(self) -> None:
        self._is_cut = True
        self._call(self._abort)

    def stall(self) -> None:
        self._call(self._passing.clear)

    def heal(self) -> None:
        self._is_cut, self._failing, self.fail_every, self.delay_s = False, 0, 0, 0.0
        self._call(self._passing.set)

    def close(self) -> None:
        self.cut()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _call(self, act: Callable[[], object]) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (act(), done.set()))
        done.wait()

    def _abort(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            unix = isinstance(self._target, str)
            there, back = await (
                asyncio.open_unix_connection(self._target) if unix else asyncio.open_connection(*self._target)
            )
        except OSError:
            writer.transport.abort()
            self._open.discard(writer)
            return
        self._open.add(back)
        both = [
            asyncio.ensure_future(one)
            for one in (self._to_server(reader, back, writer), self._to_client(there, writer))
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            for end in (writer, back):
                end.transport.abort()
                self._open.discard(end)

    async def _to_server(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(1 << 16):
            if data.startswith(_METHODS):
                self.requests += 1
                if self._failing > 0 or (self.fail_every and self.requests % self.fail_every == 0):
                    self._failing -= 1
                    self.failed += 1
                    client.write(_FAILED)
                    await client.drain()
                    return
            if self.stall_at is not None and self.stall_at in data:
                self.stall_at = None
                for proxy in self.stalls_with:
                    if proxy is self:
                        self._passing.clear()
                    else:
                        proxy.stall()
                self.stalled.set()
            await asyncio.sleep(self.delay_s)
            await self._passing.wait()
            server.write(data)
            await server.drain()

    async def _to_client(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await server.read(1 << 16):
            await self._passing.wait()
            client.write(data)
            await client.drain()


class RayNodes:
    """Nodes of a Ray cluster, in processes of their own."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(RAY_NODES)}
        self._process = subprocess.Popen(
            [sys.executable, str(RAY_NODES / "start.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | quiet,
        )
        self.address = ""
        self.raylets: list[int] = []
        """Processes of the nodes, the head's first."""

    def add(self, n: int = 1, *, cpus: int = 1, **environment: str) -> list[int]:
        """Start some nodes; return their processes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for place in range(n):
            asked = {
                "cpus": cpus,
                "environment": environment,
                "folder": self._folder,
                "wait": place == n - 1,
            }
            self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        told = [json.loads(self._process.stdout.readline()) for _ in range(n)]
        self.address = told[-1]["address"]
        self.raylets += [one["pid"] for one in told]
        return self.raylets[-n:]

    @contextlib.contextmanager
    def without(self, folder: Path) -> Iterator[None]:
        """Give the cluster a node of a CPU that has another folder in a place, an empty one."""
        ray = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            f"--address={self.address}",
            "--num-cpus=1",
            "--block",
        ]
        script = f"mount -t tmpfs none {shlex.quote(str(folder))} && exec {shlex.join(ray)}"
        process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script],
            env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        try:
            told = []
            while not told or "Ray runtime started" not in told[-1]:
                told.append(process.stdout.readline())
                assert told[-1], told
            yield
        finally:
            process.terminate()
            process.communicate(timeout=60)

    def close(self) -> None:
        self._process.communicate(timeout=120)


@pytest.fixture(scope="module")
def ray_nodes() -> Iterator[Callable[[], RayNodes]]:
    """Make a Ray cluster without nodes."""
    made: list[RayNodes] = []
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # sockets need a short path

        def make() -> RayNodes:
            made.append(RayNodes(folder))
            return made[-1]

        try:
            yield make
        finally:
            for one in made:
                one.close()


@pytest.fixture
def proxy_to() -> Iterator[Callable[..., Proxy]]:
    """Make a proxy to a port of this machine, or to a server's socket."""
    made: list[Proxy] = []

    def make(target: int | str) -> Proxy:
        made.append(Proxy(target if isinstance(target, str) else ("127.0.0.1", target)))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture
def store(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket `lakes`, emptied afterwards, with the environment that reaches it."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    system = s3_server.bucket("lakes")
    yield system
    if system.exists("lakes"):
        system.rm("lakes", recursive=True)


@pytest.fixture
def catalog(tmp_path: Path) -> Callable[[str], str]:
    return lambda name: f"sqlite:///{tmp_path / name}.db"


@pytest.fixture
def rows_of() -> Callable[..., dict[str, list[Any]]]:
    """Return the rows of a lake's tables, sorted, without what depends on when and where a run was."""

    def rows(lake: Lake) -> dict[str, list[Any]]:
        found = {}
        at = lake.snapshot
        for name in sorted(at.versions):
            if name.partition("_")[0] not in ("documents", "passages", "mentions", "rejects", "encodings"):
                continue
            data = lake.store.table(name, at=at).to_table()
            kept = data.drop_columns([column for column in ("run_id", "file") if column in data.column_names])
            found[name] = sorted(kept.to_pylist(), key=lambda row: json.dumps(row, default=str))
        return found

    return rows


@pytest.fixture
def corpus_rows() -> Callable[[int], list[dict[str, Any]]]:
    def rows(n: int) -> list[dict[str, Any]]:
        return [
            {
                "id": str(k),
                "text": f"The capital of country {k} lies on a river. It has {k * 7} bridges.",
                "source": "ab"[k % 2],
            }
            for k in range(n)
        ]

    return rows


@pytest.fixture
def corpus_files(corpus_rows: Callable[[int], list[dict[str, Any]]]) -> Callable[..., Path]:
    """Write a corpus in several files, with a row that is rejected."""

    def make(folder: Path, *, rows: int, files: int) -> Path:
        folder.mkdir()
        made, each = corpus_rows(rows), -(-rows // files)
        for n in range(files):
            lines = [json.dumps(row) for row in made[n * each : (n + 1) * each]]
            (folder / f"{n:03}.jsonl").write_text("\n".join([*lines, *(['{"id": "without text"}'] if n == 0 else [])]))
        return folder

    return make
