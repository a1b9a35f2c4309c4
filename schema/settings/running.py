"""What does the work and what serves it: engines, the explorer, logs, metrics."""

import json
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import Final

from .requiring import require

RAY: Final = "ray"
ENGINES: Final = ("local", RAY)
"""What does the work of many workers: processes of this machine, or a Ray cluster."""


def require_engine(engine: str, ray_address: str | None) -> None:
    """Raise SettingsError for an unknown engine, and for an address of a cluster that nobody would join."""
    require(engine in ENGINES, f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    require(engine == RAY or ray_address is None, "a Ray cluster's address is for --engine ray")


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """How the explorer is served, and to whom."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8321
    """Port to listen on; 0 takes a free one."""
    token: str | None = None
    """What readers must know; None lets everybody in who reaches the address."""
    exposed: bool = False
    """Whether other machines may reach it."""
    names: tuple[str, ...] = ()
    """Names of this machine that browsers may ask for, besides its addresses."""
    read_only: bool = False
    """Whether questions are refused, which are stored in the lake."""
    waiting: int = 16
    """Questions that may wait."""
    rate: float = 100.0
    """Requests a second that one address may go on making, and four times as many at once."""
    max_body: int = 1 << 20
    """Bytes of a request's body."""
    page_time_s: float = 30.0
    """Seconds after which a page is given up."""

    def __post_init__(self) -> None:
        require(bool(self.host.strip()), "host must not be empty; 127.0.0.1 is this machine alone")
        require(0 <= self.port <= 65535, f"port must be between 0 and 65535, not {self.port}")
        require(self.token is None or len(self.token) >= 12, "token must have at least 12 characters")
        require(
            self.is_local or self.exposed,
            f"host {self.host!r} can be reached from other machines, which could read the whole corpus; "
            "say so with --expose, and set a --token",
        )
        require(
            not self.exposed or self.token is not None,
            "--expose needs a --token, or everybody who reaches the port could read the whole corpus",
        )
        require(1 <= self.waiting <= 10_000, f"waiting must be between 1 and 10000, not {self.waiting}")
        require(self.rate > 0, f"rate must be more than 0, not {self.rate}")
        require(self.max_body >= 1 << 10, f"max_body must be at least 1024 bytes, not {self.max_body}")
        require(self.page_time_s > 0, f"page_time_s must be more than 0, not {self.page_time_s}")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address."""
        try:
            return ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"


LOG_FORMS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class LogSettings:
    """What is logged, where to, and how."""

    form: str = "text"
    """One of LOG_FORMS: lines for people, or a JSON object a line."""
    level: str = "warning"
    """One of LOG_LEVELS, of proponent's own records; those of libraries are warnings and errors."""
    file: str | None = None
    """File to append to; None is stderr."""

    def __post_init__(self) -> None:
        require(self.form in LOG_FORMS, f"the form of logs must be one of {', '.join(LOG_FORMS)}, not {self.form!r}")
        require(self.level in LOG_LEVELS, f"the level of logs must be one of {', '.join(LOG_LEVELS)}")

    def to_json(self) -> str:
        """Return the settings for a child process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, told: str) -> "LogSettings":
        """Read what a parent process has said."""
        return cls(**json.loads(told))


@dataclass(frozen=True)
class MetricsSettings:
    """Where metrics are served."""

    host: str
    port: int
    """0 takes a free one."""

    @classmethod
    def of_address(cls, address: str) -> "MetricsSettings":
        """Read HOST:PORT, :PORT or PORT; this machine alone can reach it unless a host says otherwise.

        Raises SettingsError.
        """
        host, _, port = address.rpartition(":")
        require(port.isdecimal() and int(port) <= 65535, f"metrics are served at HOST:PORT, not at {address!r}")
        return cls(host.strip("[]") or "127.0.0.1", int(port))
