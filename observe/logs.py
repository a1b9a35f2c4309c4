"""Logs: as text for people or as JSON for machines, to stderr or into a file, without secrets.

Notable: secrets are never told on purpose; what still has one in it, an address with a password in somebody's error,
say, is stripped of it on the way out: of values of this process's environment whose names say that they are secret, of
those that were `given`, and of passwords in addresses.
"""

import json
import logging
import os
import re
import socket
import sys
from datetime import UTC, datetime
from typing import Any, Final

from proponent.schema.errors import InputError
from proponent.schema.settings import LogSettings

LOG: Final = "PROPONENT_LOG"
"""Environment variable by which a worker learns how to log, as JSON."""
_SECRET: Final = re.compile(
    r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|ACCESS_KEY|ACCOUNT_KEY|SIGNATURE|PROPONENT_STORAGE"
)
_ADDRESS: Final = re.compile(r"(\w[\w+.-]*://[^/\s:@]*):[^/\s@]+@")
_SHORTEST: Final = 6
"""Characters of a value below which it is no secret but a word that stands everywhere."""
_given: set[str] = set()
_chosen: list[LogSettings] = []
"""How this process logs, where that is not as always."""


def hide(*secrets: str | None) -> None:
    """Keep some values out of all logs."""
    _given.update(secret for secret in secrets if secret and len(secret) >= _SHORTEST)


def without_secrets(text: str) -> str:
    """Return a text with secrets struck out."""
    named = {value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= _SHORTEST}
    for secret in sorted(named | _given, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _ADDRESS.sub(r"\1:***@", text)


class _Text(logging.Formatter):
    """`LEVEL: message field=value`, as it has always been where there are no fields; in files after the time."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items() if value is not None)
        lines = super().format(record)
        first, newline, rest = lines.partition("\n")
        return without_secrets(f"{first}{fields}{newline}{rest}")


class _Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "machine": socket.gethostname(),
            "pid": record.process,
            **_fields(record),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(told, ensure_ascii=False, default=str))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "fields", {})


def set_up(settings: LogSettings) -> None:
    """Log as settings say. Raises InputError for a file that cannot be written."""
    form: logging.Formatter = _Json() if settings.form == "json" else _Text("%(levelname)s: %(message)s")
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if settings.file is not None:
        try:
            handler = logging.FileHandler(settings.file, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{settings.file} cannot be written: {error.strerror}") from error
        if settings.form == "text":
            form = _Text("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(form)
    # Whoever runs commands inside a program has handlers already, which stay unless something else was asked for.
    logging.basicConfig(
        level=logging.WARNING, handlers=[handler], force=settings.file is not None or settings.form == "json"
    )
    logging.getLogger("proponent").setLevel(settings.level.upper())
    for noisy in ("alembic", "transformers", "lance", "lancedb"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    _chosen[:] = [] if settings == LogSettings() else [settings]


def environment() -> dict[str, str]:
    """Return environment variables by which a child process logs as this one does."""
    return {LOG: _chosen[0].to_json()} if _chosen else {}


def set_up_as_parent() -> None:
    """Log as the process that started this one, if that said how."""
    if (told := os.environ.get(LOG)) is not None:
        set_up(LogSettings.from_json(told))


def is_kept() -> bool:
    """Return whether somebody wants logs elsewhere than as lines of text on stderr."""
    return any(one.form == "json" or one.file is not None for one in _chosen)


def takes_stderr() -> bool:
    """Return whether stderr has JSON, where a line for people would be out of place."""
    return any(one.form == "json" and one.file is None for one in _chosen)
