"""Reading what may be damaged, in a process of its own.

Notable: a flipped byte in a file's metadata can end the process that reads it, or ask for more memory than there is.
So files are read by a child; when it dies or takes too long, what it was reading is damaged, and another child goes on.
"""

import json
import select
import subprocess
import sys
from types import TracebackType
from typing import Any, Final, Self

import lance
import pyarrow as pa
from lance.file import LanceFileReader

from proponent.schema.errors import StorageError
from proponent.schema.tables import rows_hash

from .objects import storage_error
from .place import LakePath, lance_options

_PATIENCE_S: Final = 120.0
_SLOWEST: Final = 2 << 20
"""Bytes a second below which a file is held for one that cannot be read."""


LANCE_ERRORS: Final = (OSError, ValueError, RuntimeError)
"""What Lance raises for files that it cannot read, as far as Python can catch it."""


class Unreadable(Exception):  # noqa: N818 - a fact about a file, not a failure of this program
    """A file or a version that cannot be read, and why."""


class Prober:
    """Asks a child process, and starts another when it dies."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def rows_hash(self, folder: LakePath, files: list[str]) -> str:
        """Return the hash of the rows in some data files, deleted ones included. Raises Unreadable."""
        size = sum((folder / file).stat().st_size for file in files)
        asked = {"folder": str(folder), "files": files, "options": lance_options(folder)}
        return str(self._ask(asked, patience_s=_PATIENCE_S + size / _SLOWEST))

    def open(self, table: LakePath, version: int | None) -> None:
        """Open a version of a table with its deleted rows, or without one all of them. Raises Unreadable."""
        asked = {"table": str(table), "version": version, "options": lance_options(table)}
        self._ask(asked, patience_s=_PATIENCE_S)

    def _ask(self, question: dict[str, Any], *, patience_s: float) -> Any:
        if self._child is not None and self._child.poll() is not None:
            self._end()
        if self._child is None:
            command = [sys.executable, "-P", "-m", "proponent.store.probe"]
            self._child = subprocess.Popen(  # noqa: S603 - own arguments
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(question) + "\n")
        self._child.stdin.flush()
        ready, _, _ = select.select([self._child.stdout], [], [], patience_s)
        line = self._child.stdout.readline() if ready else ""
        if not line:
            self._end()
            raise Unreadable("reading it ends the process" if ready else "reading it does not come to an end")
        answer = json.loads(line)
        if "away" in answer:
            raise StorageError(answer["away"])
        if "error" in answer:
            raise Unreadable(answer["error"])
        return answer["found"]

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def described(error: BaseException) -> str:
    """Return what an error of Lance says, without the places in its source.

    Raises StorageError for one of an object store, which says nothing of what is stored there.
    """
    if (away := storage_error(error)) is not None:
        raise away from error
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return first.split(", /", 1)[0].split(" rust/", 1)[0][:200]


def _answer(question: dict[str, Any]) -> Any:
    if "files" in question:
        options, files = question.get("options"), [f"{question['folder']}/{file}" for file in question["files"]]
        parts = [LanceFileReader(file, storage_options=options).read_all().to_table() for file in files]
        return rows_hash(pa.concat_tables(parts))
    dataset = lance.dataset(question["table"], version=question["version"], storage_options=question.get("options"))
    if question["version"] is None:
        return max(dataset.checkout_version(one["version"]).version for one in dataset.versions())
    for fragment in dataset.get_fragments():
        if fragment.num_deletions:
            fragment.count_rows()
    return dataset.version


def main() -> None:
    """Answer questions from stdin, a line of JSON each."""
    for line in sys.stdin:
        try:
            answer = {"found": _answer(json.loads(line))}
        except BaseException as error:
            away = storage_error(error)
            answer = {"away": str(away)} if away else {"error": described(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
