import gzip
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.tracing import Tracing
from tests.fakes import FakeHouse
from tests.http.serving import Running, photo, running, until

CALLER = "0af7651916cd43dd8448eb211c80319c"


class Traced:
    def __init__(self, server: Running, house: FakeHouse, memory: InMemorySpanExporter) -> None:
        self.server, self.house, self.client = server, house, server.client()
        self._memory = memory

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """Once the device has come to rest, for a batch ends after its requests."""
        self.server.state.scheduler.close(30)
        every = self._memory.get_finished_spans()
        return [span for span in every if name in (None, span.name)]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    memory, house = InMemorySpanExporter(), FakeHouse()
    monkeypatch.setattr(Tracing, "to", lambda url: Tracing(SimpleSpanProcessor(memory)))
    with running(house, otlp_url="http://127.0.0.1:9/v1/traces") as server:
        traced = Traced(server, house, memory)
        with traced.client:
            yield traced


def context(span: ReadableSpan) -> Any:  # noqa: ANN401
    assert span.context
    return span.context


def test_a_request_s_stages_are_its_children_in_their_order(traced: Traced) -> None:
    headers = {"traceparent": f"00-{CALLER}-b7ad6b7169203331-01"}
    assert traced.client.post("/pose", content=photo(), headers=headers).status_code == 200
    spans = traced.spans()
    (request,) = [span for span in spans if span.name == "POST /pose"]
    assert f"{context(request).trace_id:032x}" == CALLER
    assert request.attributes == {
        "http.request.method": "POST", "http.route": "/pose", "http.response.status_code": 200,
    }  # fmt: skip
    stages = [
        span for span in spans if span.parent and span.parent.span_id == context(request).span_id
    ]
    assert {"read", "decode_image", "detect", "cut", "queue", "encode", "head", "answer"} <= {
        span.name for span in stages
    }
    assert request.start_time
    assert request.end_time
    for span in stages:
        assert span.start_time
        assert span.end_time
        assert request.start_time <= span.start_time <= span.end_time <= request.end_time
    begins = {span.name: span.start_time or 0 for span in stages}
    in_order = [begins[name] for name in ("read", "cut", "encode", "head", "answer")]
    assert in_order == sorted(in_order)


def test_a_batch_links_to_every_request_that_it_works_for(traced: Traced) -> None:
    house = traced.house
    house.engine.open.clear()
    while house.engine.entered.acquire(blocking=False):
        pass  # those of the warm-up
    with ThreadPoolExecutor(5) as pool:

        def post() -> Future[httpx.Response]:
            return pool.submit(traced.client.post, "/pose?detector=whole", content=photo())

        first = post()
        assert house.engine.entered.acquire(timeout=30)
        others = [post() for _ in range(4)]
        until(lambda: traced.server.state.scheduler.waiting == 4)
        house.engine.open.set()
        assert [each.result().status_code for each in (first, *others)] == [200] * 5
    requests = {context(span).span_id for span in traced.spans("POST /pose")}
    assert len(requests) == 5
    crops = [
        span
        for span in traced.spans("batch")
        if span.attributes and span.attributes["subpose.lane"] == "fake/crops"
    ]
    linked = [{link.context.span_id for link in span.links} for span in crops]
    assert [span.attributes and span.attributes["subpose.items"] for span in crops] == [1, 4]
    assert list(map(len, linked)) == [1, 4]
    assert set.union(*linked) == requests


def test_spans_reach_a_collector_by_otlp() -> None:
    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            packed = self.headers.get("content-encoding") == "gzip"
            received.append(gzip.decompress(body) if packed else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        Thread(target=collector.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{collector.server_port}/v1/traces"
        with running(FakeHouse(), otlp_url=url) as server, server.client() as client:
            client.post("/pose", content=photo())
        # What is left is sent before the server ends.
        collector.shutdown()
    spans = [
        span.name
        for body in received
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert {"POST /pose", "encode", "batch"} <= set(spans)


def test_an_error_of_the_service_is_one_in_the_trace_and_a_caller_s_is_not(
    traced: Traced,
) -> None:
    assert traced.client.post("/pose", content=b"no photo").status_code == 415
    (span,) = traced.spans("POST /pose")
    assert span.status.is_ok or span.status.is_unset
    assert span.attributes
    assert span.attributes["http.response.status_code"] == 415


def test_spans_hold_nothing_that_a_caller_wrote(traced: Traced) -> None:
    id_ = traced.client.post("/pose", content=photo()).json()["id"]
    traced.client.get("/heatmap", params={"id": id_, "keypoint": "nose"})
    traced.client.get(f"/somewhere/{id_}")
    told = "".join(span.to_json() for span in traced.spans())
    assert id_ not in told
    assert "nose" not in told
    assert "somewhere" not in told
