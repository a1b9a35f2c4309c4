"""The explorer under load: pages and JSON a second and their latencies, with fifty readers, while traces run.

    python benchmarks/serve.py                     # some minutes on two cores
    python benchmarks/serve.py --keep /tmp/served  # leaves the lake there, or uses the one that is there

A lake of generated documents with vectors, as `lake.py` makes them; a real `proponent serve`; readers in a process of
their own, each from an address of its own, since the explorer bounds what one address may ask. The reference is an
application that answers everything with one constant page, behind the same guard and the same server.

- Hasty readers ask for the next page at once, so that they measure what can be served; their latencies are the length
  of a queue that is always full.
- Calm readers look at each page for a second, so that they measure how long people wait.

Prints one JSON object as its last line.
"""

import argparse
import http.client
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import quote

from lake import corpus_lines, measured

N_DOCUMENTS = 10_000
N_READERS = 50
_TRACES = 40
_CALM_S = 1.0
_PHASE_S = 15.0
_STATEMENT = "SELECT source, count(*) AS n, sum(score) AS influence FROM influence GROUP BY source ORDER BY n DESC"
_SUBJECTS = ("The river", "The market", "A quiet town", "The old bridge", "Nobody")


# The lake


def make_lake(folder: Path) -> None:
    """Make a lake with vectors and some stored traces, two by different methods of every question."""
    import proponent

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(line for line, _ in zip(corpus_lines(10 * N_DOCUMENTS), range(N_DOCUMENTS), strict=False))
    for step in ("ingest", "fit", "encode"):
        measured(step, folder)
    questions = [dict(zip(("prompt", "target"), question(number), strict=True)) for number in range(_TRACES // 2)]
    with proponent.open(folder / "lake") as lake:
        lake.index_text()
        lake.index_columns()
        for method in ("trackstar", "bm25"):
            lake.trace_all(questions, method=method)


def question(number: int) -> tuple[str, str]:
    """Return a prompt and a target, other ones for every number."""
    return f"{_SUBJECTS[number % len(_SUBJECTS)]} of number {number}", " was there."


# Servers


@contextmanager
def started(*command: str) -> Iterator[tuple[str, int]]:
    """Start a server that says where it is; give its address and its process id."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline() if process.stderr else ""
        # What it says later is handed on: a pipe that nobody reads would make it wait.
        threading.Thread(target=lambda: [sys.stderr.write(more) for more in process.stderr or ()], daemon=True).start()
        yield line.split("http://")[1].split("/")[0], process.pid
    finally:
        process.terminate()
        process.wait(30)


def constant() -> None:
    """Serve one page for every address, behind the explorer's guard."""
    import socket

    import uvicorn
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, PlainTextResponse, Response

    from proponent.query.web.guard import Guard
    from proponent.schema.settings import ServeSettings

    page = "x" * 16_000

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await HTMLResponse(page)(scope, receive, send)

    def failed(_request: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), status_code=500)

    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # as the explorer's
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    print(f"at http://127.0.0.1:{listening.getsockname()[1]}/", file=sys.stderr, flush=True)
    app = Guard(answer, ServeSettings(), failed)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listening])


def resident(pid: int) -> float:
    """Return the MiB of memory that a process holds."""
    import psutil

    return round(psutil.Process(pid).memory_info().rss / (1 << 20), 1)


# Readers, in a process of their own


def read(address: str, paths: list[str], seconds: float, pause: float, most: int) -> dict[str, Any]:
    """Let all readers read, for so many seconds or requests; return the latencies of every path, in seconds."""
    taken: dict[str, list[float]] = {path: [] for path in paths}
    wrong: dict[str, int] = {}
    lock, until, left = threading.Lock(), time.monotonic() + seconds, [most]

    def reader(number: int) -> None:
        place = number * 7
        time.sleep(pause * number / N_READERS)
        connection = http.client.HTTPConnection(
            address, timeout=60, source_address=(f"127.0.1.{number + 1}", 0) if number >= 0 else None
        )
        while time.monotonic() < until:
            with lock:
                left[0] -= 1
                if left[0] < 0:
                    break
            path = paths[place % len(paths)]
            place += 1
            began = time.monotonic()
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            spent = time.monotonic() - began
            with lock:
                taken[path].append(spent)
                if answer.status != 200:
                    wrong[f"{answer.status} {path}"] = wrong.get(f"{answer.status} {path}", 0) + 1
            time.sleep(max(0.0, pause - spent))
        connection.close()

    began = time.monotonic()
    threads = [threading.Thread(target=reader, args=(number,)) for number in range(N_READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seconds": time.monotonic() - began, "taken": taken, "wrong": wrong}


def readers(
    address: str, paths: list[str], *, seconds: float = _PHASE_S, pause: float = 0.0, most: int = 1 << 40
) -> Callable[[], dict[str, Any]]:
    """Start the readers' process; return what waits for it and gives what it found."""
    command = [sys.executable, __file__, "--read", json.dumps([address, paths, seconds, pause, most])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def result() -> dict[str, Any]:
        output, _ = process.communicate()
        found: dict[str, Any] = json.loads(output)
        return found

    return result


# Traces


def ask(address: str, number: int) -> float:
    """Ask a question and wait until it is answered; return the seconds that took."""
    connection = http.client.HTTPConnection(address, timeout=120)
    began = time.monotonic()
    prompt, target = question(number)
    body = json.dumps({"prompt": prompt, "target": target})
    connection.request("POST", "/api/traces", body, {"Content-Type": "application/json"})
    job = json.loads(connection.getresponse().read())
    while job["state"] in ("waiting", "running"):
        time.sleep(0.02)
        connection.request("GET", f"/api/jobs/{job['job']}")
        job = json.loads(connection.getresponse().read())
    connection.close()
    if job["state"] != "done":
        raise SystemExit(f"a trace failed: {job}")
    return time.monotonic() - began


class Asking:
    """Asks one question after the other until it is told to end."""

    def __init__(self, address: str, first: int) -> None:
        self.taken: list[float] = []
        self._address, self._number = address, first
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            self.taken.append(ask(self._address, self._number))
            self._number += 1

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        self._thread.join()


# What is told


def told(found: dict[str, Any], name: Callable[[str], str]) -> dict[str, Any]:
    """Return requests a second, and the latencies of every kind of page, in milliseconds."""
    kinds: dict[str, list[float]] = {}
    for path, taken in found["taken"].items():
        kinds.setdefault(name(path), []).extend(taken)
    everything = [one for taken in kinds.values() for one in taken]
    return {
        "a second": round(len(everything) / found["seconds"], 1),
        "all": summary(everything),
        "over 1 s": sum(one > 1 for one in everything),
        "pages": {kind: summary(taken) for kind, taken in kinds.items() if taken},
        "wrong": found["wrong"],
    }


def summary(taken: list[float]) -> dict[str, float]:
    """Return how many there were, and their median, 95th percentile and largest in milliseconds."""
    p95 = quantiles(taken, n=20)[-1] if len(taken) > 1 else taken[0]
    figures = {"p50": median(taken), "p95": p95, "max": max(taken)}
    return {"n": len(taken), **{name: round(1000 * value, 1) for name, value in figures.items()}}


def show(title: str, found: dict[str, Any]) -> None:
    """Print a phase."""
    print(f"\n{title}: {found['a second']:,.1f} requests a second, {found['over 1 s']} of them over 1 s")
    print(f"  {'':24} {'n':>6} {'p50':>9} {'p95':>9} {'max':>9}  ms")
    for name, one in {"all": found["all"], **found["pages"]}.items():
        print(f"  {name:24} {one['n']:6} {one['p50']:9.1f} {one['p95']:9.1f} {one['max']:9.1f}")
    if found["wrong"]:
        print(f"  not answered: {found['wrong']}")
    sys.stdout.flush()


def show_traces(title: str, taken: list[float]) -> dict[str, float]:
    """Print how long traces took."""
    one = summary(taken)
    print(f"{title}: {one['n']} traces, p50 {one['p50']:,.0f} ms, p95 {one['p95']:,.0f} ms, max {one['max']:,.0f} ms")
    sys.stdout.flush()
    return one


def pages_of(address: str) -> dict[str, str]:
    """Return the pages that are read, by what they are called."""
    connection = http.client.HTTPConnection(address, timeout=60)
    traces = []
    for number in (2, 3):  # of each two, by words and by influence
        connection.request("GET", f"/api/?find={quote(f'of number {number} was')}")
        traces += json.loads(connection.getresponse().read())["traces"]
    connection.close()
    a, b = (one["trace_id"] for one in traces[:2])
    pages = {"ask": "/", "status": "/status", "SQL": "/sql", "compare": f"/compare?a={a}&b={b}"}
    pages |= {f"result {number}": f"/traces/{one['trace_id']}" for number, one in enumerate(traces)}
    pages["rows of SQL"] = f"/sql?run=true&query={quote(_STATEMENT)}"
    return pages | {f"{name}, JSON": f"/api{path}" for name, path in pages.items()}


def measure(folder: Path) -> dict[str, Any]:
    """Measure everything; return what the last line says."""
    found: dict[str, Any] = {"documents": N_DOCUMENTS, "readers": N_READERS}
    with started(sys.executable, __file__, "--constant") as (address, _):
        found["constant page"] = told(readers(address, ["/"], seconds=5.0)(), str)
        show("One constant page behind the guard", found["constant page"])
    command = (sys.executable, "-m", "proponent", "serve", str(folder / "lake"), "--port", "0", "--no-open")
    with started(*command) as (address, pid):
        pages = pages_of(address)
        names = {path: re.sub(r" \d+", "", name) for name, path in pages.items()}  # all results are one kind of page
        paths, name = list(pages.values()), names.__getitem__
        ask(address, 1000)  # loads the model
        found["traces alone"] = show_traces("\nNobody reads", [ask(address, 1001 + number) for number in range(5)])

        found["hasty"] = told(readers(address, paths)(), name)
        show("Hasty readers, no traces", found["hasty"])
        with Asking(address, 2000) as asking:
            found["hasty, traces"] = told(readers(address, paths)(), name)
        show("Hasty readers while traces run", found["hasty, traces"])
        found["traces, hasty readers"] = show_traces("Meanwhile", asking.taken)
        with Asking(address, 3000) as asking:
            found["calm, traces"] = told(readers(address, paths, seconds=2 * _PHASE_S, pause=_CALM_S)(), name)
        show("Calm readers while traces run", found["calm, traces"])
        found["traces, calm readers"] = show_traces("Meanwhile", asking.taken)

        held = [resident(pid)]
        for _ in range(4):
            readers(address, paths, seconds=600, most=2_500)()
            held.append(resident(pid))
        found["memory"] = held
        figures = ", ".join(f"{one:,.0f}" for one in held)
        print(f"\nMiB held before and after each 2,500 of 10,000 more requests: {figures}")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="folder of the lake, which stays there")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    parser.add_argument("--constant", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(*json.loads(options.read))))
    elif options.constant:
        constant()
    elif options.keep:
        if not (options.keep / "lake").exists():
            make_lake(options.keep)
        print(json.dumps(measure(options.keep)))
    else:
        with tempfile.TemporaryDirectory() as parent:
            make_lake(Path(parent))
            print(json.dumps(measure(Path(parent))))


if __name__ == "__main__":
    main()
