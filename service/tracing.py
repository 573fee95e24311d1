"""OpenTelemetry spans of requests and of the device's batches, where a server is told to send them.

A request's span has one child a stage. A batch belongs to several requests at once, so its span
stands by itself and links to theirs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, cast

from service.timings import Timings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span


class Tracing:
    """Makes spans of what `Timings` and the device have measured.

    Args:
        processor: what takes the spans that have ended.
    """

    def __init__(self, processor: SpanProcessor) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        about = {"service.name": "subpose", "service.version": version("subpose")}
        self._provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("subpose")
        # Spans are on the wall clock; what is measured is not, so that no clock's step bends it.
        self._epoch_ns = time.time_ns() - time.monotonic_ns()

    @classmethod
    def to(cls, url: str) -> Tracing:
        """Send spans to a collector.

        Args:
            url: of its OTLP/HTTP traces, such as `http://localhost:4318/v1/traces`.
        """
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        return cls(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))

    def begin(self, headers: Mapping[str, str], timings: Timings) -> None:
        """Begin a request's span, under the caller's own where `traceparent` names one.

        Args:
            headers: of the request, names in lower case.
            timings: of the request; holds the span.
        """
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        timings.trace = self._tracer.start_span(
            "request",
            extract({"traceparent": headers.get("traceparent", "")}),
            SpanKind.SERVER,
            start_time=self._ns(timings.began),
        )

    def end(self, timings: Timings, method: str, route: str, status: int) -> None:
        """End a request's span; its stages become its children."""
        from opentelemetry.trace import StatusCode, set_span_in_context

        span = cast("Span", timings.trace)
        parent = set_span_in_context(span)
        for interval in timings.intervals:
            child = self._tracer.start_span(
                interval.stage, parent, start_time=self._ns(interval.began)
            )
            child.end(self._ns(interval.ended))
        span.update_name(f"{method} {route}")
        # Nothing of what a caller wrote: no id, no parameter.
        span.set_attribute("http.request.method", method)
        span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(self._ns(time.monotonic()))

    def batch(self, lane: str, items: int, seconds: float, traces: Iterable[object]) -> None:
        """Tell of a batch that has just come back from the device.

        Args:
            lane: its name.
            items: in it.
            seconds: on the device.
            traces: the spans of the requests that it worked for, each once.
        """
        from opentelemetry.trace import Link

        ended = time.monotonic()
        links = [Link(cast("Span", trace).get_span_context()) for trace in traces if trace]
        span = self._tracer.start_span(
            "batch", links=links, start_time=self._ns(ended - seconds),
            attributes={"subpose.lane": lane, "subpose.items": items},
        )  # fmt: skip
        span.end(self._ns(ended))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def _ns(self, monotonic: float) -> int:
        return self._epoch_ns + int(monotonic * 1e9)
