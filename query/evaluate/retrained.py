"""Models trained anew, several at once: processes that train, and a file of what their models said.

Notable: what a model said is kept as soon as it is known, under a hash of everything that decides it. What was killed
goes on with the models that are missing.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Final, TextIO

from proponent.schema import errors
from proponent.schema.errors import InputError, ProponentError, WorkerError
from proponent.schema.ids import content_id

from .trainer import Job, Output, Task

KEPT: Final = "retrained.jsonl"
_GRACE_S: Final = 5.0

Progress = Callable[[int], object]
Train = Callable[[Job, Sequence[Task]], Iterator[tuple[Task, Output]]]
"""Trains the models of some tasks, and yields what each says as soon as it is known."""


def outputs(
    job: Job, tasks: Sequence[Task], *, identity: str, folder: Path | None, train: Train, progress: Progress
) -> dict[Task, Output]:
    """Have the models of all tasks trained, each once; return what they say.

    `identity` is a hash of the job. What `retrained.jsonl` in the folder has is not trained again. Raises what `train`
    raises. What is done by then is kept.
    """
    keys = {task: _key(identity, task) for task in tasks}
    with _Kept(folder) as kept:
        found = {task: kept.known[key] for task, key in keys.items() if key in kept.known}
        progress(len(found))
        missing = [task for task in keys if task not in found]
        for task, output in train(job, missing) if missing else ():
            kept.add(keys[task], output)
            found[task] = output
            progress(1)
    return found


def train_here(job: Job, tasks: Sequence[Task], *, processes: int) -> Iterator[tuple[Task, Output]]:
    """Train the models of some tasks in processes of this machine.

    Raises what a task failed with, and WorkerError when a process dies; a Ctrl-C ends all processes.
    """
    with TemporaryDirectory(prefix="proponent-retraining-") as name:
        path = Path(name) / "job.json"
        job.write(path)
        yield from _train(path, tasks, min(processes, len(tasks)), job.threads)


def _key(identity: str, task: Task) -> str:
    return content_id("retrained", identity, task.seed, ",".join(map(str, task.places)))


class _Kept:
    """What models said, in a file that is only ever added to; without a folder in memory alone."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / KEPT
        self._file: TextIO | None = None
        self.known: dict[str, Output] = {}

    def __enter__(self) -> "_Kept":
        if self._path is not None:
            self.known = _read(self._path) if self._path.exists() else {}
            self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, key: str, output: Output) -> None:
        self.known[key] = output
        if self._file is not None:
            self._file.write(json.dumps({"key": key, **output._asdict()}) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())


def _read(path: Path) -> dict[str, Output]:
    """Return what a file has, and cut off a last line that was not written to its end."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    known = {}
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        try:
            row = json.loads(line)
            known[row["key"]] = Output(row["log_probability"], row["said"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}:{number} is no output of a model; remove the file or name another folder"
            ) from error
    return known


def _train(path: Path, tasks: Sequence[Task], processes: int, threads: int) -> Iterator[tuple[Task, Output]]:
    """Yield every task with what its model says, in the order in which they are done."""
    waiting = list(reversed(tasks))
    with _workers(path, processes, threads) as workers, selectors.DefaultSelector() as selector:
        at_work: dict[int, Task] = {}
        for place, worker in enumerate(workers):
            selector.register(_pipe(worker.stdout), selectors.EVENT_READ, place)
            at_work[place] = _assign(worker, waiting.pop())
        while at_work:
            for ready, _ in selector.select():
                place, worker = ready.data, workers[ready.data]
                output = _answer(worker)  # a worker has one task at a time, and so no line after this one
                task = at_work.pop(place)
                if waiting:
                    at_work[place] = _assign(worker, waiting.pop())
                else:
                    selector.unregister(_pipe(worker.stdout))
                yield task, output


def _assign(worker: subprocess.Popen[str], task: Task) -> Task:
    stream = _pipe(worker.stdin)
    try:
        stream.write(json.dumps(task._asdict()) + "\n")
        stream.flush()
    except BrokenPipeError:
        _answer(worker)
    return task


def _answer(worker: subprocess.Popen[str]) -> Output:
    line = _pipe(worker.stdout).readline()
    if not line:
        code = worker.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise WorkerError(
            f"a process that trains {how}; what was trained is kept: start again, with fewer processes where memory is "
            "short"
        )
    answer: Mapping[str, Any] = json.loads(line)
    if "error" in answer:
        kind = getattr(errors, answer["kind"], WorkerError)
        raise (kind if issubclass(kind, ProponentError) else WorkerError)(answer["error"])
    return Output(**answer)


def _pipe(stream: Any) -> Any:
    assert stream is not None
    return stream


@contextmanager
def _workers(path: Path, n: int, threads: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes that train, each with what it starts in a group of its own, and end all of that."""
    workers: list[subprocess.Popen[str]] = []
    try:
        folders = [Path(mkdtemp(dir=path.parent)) for _ in range(n)]
        workers.extend(_start(path, folder, threads) for folder in folders)
        yield workers
        for worker in workers:
            _pipe(worker.stdin).close()
        for worker in workers:
            worker.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        for worker in workers:
            _kill(worker)


def _start(path: Path, folder: Path, threads: int) -> subprocess.Popen[str]:
    trainer = [sys.executable, "-P", "-m", "proponent.query.evaluate.trainer", str(path), str(folder)]
    guarded = str(Path(__file__).with_name("guarded.py"))
    command = [sys.executable, "-I", "-S", guarded, str(folder), *trainer]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    # In a session of its own: a Ctrl-C reaches this process alone, which ends the others and what they started.
    return subprocess.Popen(  # noqa: S603  (own arguments)
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def _kill(worker: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    for stream in (worker.stdin, worker.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):  # of a task that it never read
                stream.close()
