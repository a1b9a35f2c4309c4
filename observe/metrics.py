"""Metrics for Prometheus: the extra `telemetry`.

Notable: counts of worker processes are added up through files in a scratch folder, which is prometheus-client's own
way, so that one address serves those of a command and of all its workers, ended ones included. How many units wait and
who works on them is read from the catalog when somebody asks, so that any process can tell it.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from proponent.schema.errors import InputError
from proponent.schema.settings import MetricsSettings

from . import events
from .events import COUNTS, SPANS, Fields

_FILES: Final = "PROMETHEUS_MULTIPROC_DIR"
_BUCKETS: Final = (0.005, 0.02, 0.1, 0.5, 2, 10, 30, 120, 600, 3600)
"""Seconds: from one score of a small lake to a unit of a large model."""


class Gauge(NamedTuple):
    """A number that is read when somebody asks."""

    name: str
    """Without `proponent_`."""
    help: str
    labels: Mapping[str, str]
    value: float


Gauges = Callable[[], Iterable[Gauge]]


class Metrics:
    """Takes what is told, and hands it out as text."""

    def __init__(self, gauges: Gauges = tuple) -> None:
        """Begin to count; `gauges` are read each time. Raises InputError without the extra."""
        try:
            import prometheus_client
        except ModuleNotFoundError as error:
            raise InputError(f"metrics need {error.name}; pip install 'proponent[telemetry]'") from error
        self._registry = own = prometheus_client.CollectorRegistry()
        self._seconds = {
            name: prometheus_client.Histogram(
                f"proponent_{name}_seconds", told, ["status"], buckets=_BUCKETS, registry=own
            )
            for name, told in SPANS.items()
        }
        self._counts = {
            name: prometheus_client.Counter(f"proponent_{name}", told, labels, registry=own)
            for name, (told, labels) in COUNTS.items()
        }
        for name, (_, labels) in COUNTS.items():
            if not labels:
                self._counts[name].inc(0)
        self._shown: Any = own
        if _FILES in os.environ:
            from prometheus_client import multiprocess

            self._shown = prometheus_client.CollectorRegistry()
            multiprocess.MultiProcessCollector(self._shown)  # type: ignore[no-untyped-call]
        self._shown.register(_Read(gauges))
        events.watch(self)

    @contextmanager
    def span(self, name: str, _fields: Fields) -> Iterator[None]:
        """Take how long something took."""
        began, status = time.perf_counter(), "failed"
        try:
            yield
            status = "done"
        finally:
            self._seconds[name].labels(status).observe(time.perf_counter() - began)

    def count(self, name: str, n: float, labels: Mapping[str, str]) -> None:
        """Take a count."""
        counter = self._counts[name]
        (counter.labels(**labels) if labels else counter).inc(n)

    def text(self) -> tuple[bytes, str]:
        """Return the exposition and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self._shown), CONTENT_TYPE_LATEST

    def close(self) -> None:
        """Count no more."""
        events.unwatch(self)


class _Read:
    """Reads gauges when somebody asks."""

    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        families: dict[str, GaugeMetricFamily] = {}
        try:
            for gauge in self._gauges():
                family = families.get(gauge.name)
                if family is None:
                    name, labels = f"proponent_{gauge.name}", list(gauge.labels)
                    family = families[gauge.name] = GaugeMetricFamily(name, gauge.help, labels=labels)
                family.add_metric(list(gauge.labels.values()), gauge.value)
        except Exception:  # whatever is wrong with the catalog must not hide the counts
            families = {}
        told = "Whether the lake's catalog could be read just now."
        yield GaugeMetricFamily("proponent_catalog_up", told, value=float(bool(families)))
        yield from families.values()


@contextmanager
def serving(settings: MetricsSettings | None, gauges: Gauges) -> Iterator[int | None]:
    """Serve the metrics of this process and of its workers in a with block; give the port, None without settings.

    Raises InputError for an address of no use, and without the extra.
    """
    if settings is None:
        yield None
        return
    folder = tempfile.mkdtemp(prefix="proponent-metrics-")
    os.environ[_FILES] = folder  # where prometheus-client looks for it, here and in workers
    try:
        metrics = Metrics(gauges)
        try:
            from prometheus_client import start_http_server

            server, thread = start_http_server(settings.port, settings.host, registry=metrics._shown)
        except OSError as error:
            raise InputError(
                f"metrics cannot be served at {settings.host}:{settings.port}: {error.strerror}"
            ) from error
        try:
            yield int(server.server_port)
        finally:
            metrics.close()
            server.shutdown()
            server.server_close()
            thread.join()
    finally:
        del os.environ[_FILES]
        shutil.rmtree(folder, ignore_errors=True)


def set_up_as_worker() -> None:
    """Count for the process that started this one, if that serves metrics."""
    if _FILES in os.environ:
        with suppress(InputError):
            Metrics()
