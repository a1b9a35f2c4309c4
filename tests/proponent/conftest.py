"""Checks that read files in the test's own process, since starting another takes longer than reading a tiny lake."""

from pathlib import Path
from typing import Any, Self

import pytest

from proponent.store import check, probe


class _Here:
    """Answers as a Prober does."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        return

    def rows_hash(self, folder: Path, files: list[str]) -> str:
        return str(self._ask({"folder": str(folder), "files": files}))

    def open(self, table: Path, version: int | None) -> None:
        self._ask({"table": str(table), "version": version})

    @staticmethod
    def _ask(question: dict[str, Any]) -> Any:
        try:
            return probe._answer(question)
        except Exception as error:
            raise probe.Unreadable(probe.described(error)) from error


@pytest.fixture
def read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let checks read in this process: for lakes whose files do not end it."""
    monkeypatch.setattr(check, "Prober", _Here)
