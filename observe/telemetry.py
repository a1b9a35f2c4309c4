"""Traces for OpenTelemetry, where its standard environment variables name a receiver: the extra `telemetry`.

Notable: a worker's spans are children of the span of the process that started it, whose id it gets by the environment
variable TRACEPARENT. An error is told by its class, never by its message, which may quote what somebody wrote. Spans
that no receiver takes are dropped, and nobody waits for one.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from . import events
from .events import Fields

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_log = logging.getLogger(__name__)
_providers: list[Any] = []
"""Where spans go: nowhere, or to one."""


def is_wanted() -> bool:
    """Return whether the environment names a receiver of traces."""
    is_off = (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    )
    return not is_off and any(os.environ.get(name) for name in _ENDPOINTS)


def set_up() -> None:
    """Send spans from now on, if the environment names a receiver and the extra is there."""
    if _providers or not is_wanted():
        return
    from importlib.metadata import version

    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        events.tell(_log, f"no traces are sent without {error.name}; pip install 'proponent[telemetry]'")
        return
    # A receiver that is away is no reason to write on somebody's terminal.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    release = version("proponent")
    resource = Resource.create({"service.version": release} | _service())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    events.watch(_Spans(provider, release))
    _providers.append(provider)


def _service() -> dict[str, str]:
    """Return the name of the service, unless the environment gives one."""
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return {} if named else {"service.name": "proponent"}


def environment() -> dict[str, str]:
    """Return environment variables by which a child's spans belong to the present one."""
    if not _providers:
        return {}
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier)
    return {name.upper(): value for name, value in carrier.items()}


def flush() -> None:
    """Send what is left, for a process that ends."""
    for provider in _providers:
        with suppress(Exception):  # a receiver that is away
            provider.shutdown()


class _Spans:
    """Makes spans of what is told."""

    def __init__(self, provider: Any, release: str) -> None:
        from opentelemetry.propagate import extract

        self._tracer = provider.get_tracer("proponent", release)
        told = {name.lower(): os.environ[name] for name in ("TRACEPARENT", "TRACESTATE") if name in os.environ}
        self._parent = extract(told) if told else None

    @contextmanager
    def span(self, name: str, fields: Fields) -> Iterator[None]:
        from opentelemetry import trace

        given = {f"proponent.{key}": value for key, value in fields.items() if value is not None}
        inside = trace.get_current_span().get_span_context().is_valid
        parent = None if inside else self._parent
        with self._tracer.start_as_current_span(
            f"proponent.{name}", context=parent, attributes=given, record_exception=False, set_status_on_exception=False
        ) as made:
            try:
                yield
            except BaseException as error:
                made.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
                raise

    def count(self, _name: str, _n: float, _labels: object) -> None:
        return
