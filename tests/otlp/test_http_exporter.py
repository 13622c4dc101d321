"""How a request over HTTP travels: connections, proxies, compression, credentials."""

import base64
import contextlib
import gzip
import zlib

import pytest
from tests.support.proxy import Proxy

from sidelight.otlp.endpoint import Endpoint
from sidelight.otlp.exporter import ExportError, Rejected
from sidelight.otlp.http_exporter import HttpExporter


@pytest.fixture
def server():
    with Proxy(mode="answer") as proxy:
        proxy.answer(200)
        yield proxy


@contextlib.contextmanager
def exporter(url, **environment):
    made = HttpExporter(Endpoint("traces", url, environment))
    try:
        yield made
    finally:
        made.close()


def test_requests_share_a_connection_until_the_peer_closes_it(server):
    with exporter(server.endpoint) as sending:
        for _ in range(3):
            assert sending.send(b"abc") == Rejected()
        assert server.accepted == 1
        server.reset_connections()  # as an idle timeout does
        assert sending.send(b"abc") == Rejected()
        assert server.accepted == 2
    assert [request.body for request in server.requests] == [b"abc"] * 4


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Connection": "close"}, b""),
        (
            {"Transfer-Encoding": "chunked", "Connection": "close"},
            b"3\r\n\x0a\x01\x00\r\n0\r\n\r\n",
        ),
    ],
)
def test_an_answer_that_ends_its_connection(server, headers, body):
    server.answer(200, headers, body)
    with exporter(server.endpoint) as sending:
        for _ in range(2):
            assert sending.send(b"abc") == Rejected()
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("value", "encoding", "plain"),
    [
        ("gzip", "gzip", gzip.decompress),
        ("GZIP", "gzip", gzip.decompress),
        ("deflate", "deflate", zlib.decompress),
        ("none", None, bytes),
        ("", None, bytes),
    ],
)
def test_compression(server, value, encoding, plain):
    for name in ("OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION"):
        with exporter(server.endpoint, **{name: value}) as sending:
            sending.send(b"abc" * 100)
    for request in server.requests:
        assert request.headers.get("content-encoding") == encoding
        assert plain(request.body) == b"abc" * 100


def test_an_unknown_compression_is_logged(server, caplog):
    with exporter(server.endpoint, OTEL_EXPORTER_OTLP_COMPRESSION="br") as sending:
        sending.send(b"abc")
    assert server.requests[0].body == b"abc"
    assert "OTEL_EXPORTER_OTLP_COMPRESSION=br is not supported" in caplog.text


# -- proxies ---------------------------------------------------------------------------------------

CREDENTIALS = f"Basic {base64.b64encode(b'user:pa ss').decode()}"


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_reads_a_request_over_http(server, name):
    to = server.endpoint.replace("http://", "http://user:pa%20ss@")
    with exporter("http://collector:4318", **{name: to}) as sending:
        sending.send(b"abc")
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "http://collector:4318/v1/traces")
    assert request.headers["host"] == "collector:4318"
    assert request.headers["proxy-authorization"] == CREDENTIALS


def test_a_proxy_opens_a_tunnel_for_https(server):
    server.answer(407)
    to = server.endpoint.replace("http://", "user:pa%20ss@")
    with (
        exporter("https://collector:4318", https_proxy=to) as sending,
        pytest.raises(ExportError, match="407") as raised,
    ):
        sending.send(b"abc")
    assert raised.value.kind == "unavailable"
    (request,) = server.requests
    assert (request.method, request.path) == ("CONNECT", "collector:4318")
    assert request.headers["proxy-authorization"] == CREDENTIALS
    assert not request.body


@pytest.mark.parametrize(
    "excepted", ["*", "127.0.0.1", "localhost, 127.0.0.0/8", "127.0.0.1:{port}"]
)
def test_no_proxy(server, excepted):
    port = server.address[1]
    around = {"http_proxy": "http://127.0.0.1:1", "no_proxy": excepted.format(port=port)}
    with exporter(server.endpoint, **around) as sending:
        sending.send(b"abc")
    assert server.requests[0].path == "/v1/traces"


@pytest.mark.parametrize("excepted", ["10.0.0.0/8", "example.com", ""])
def test_an_address_that_no_proxy_does_not_name(server, excepted):
    around = {"http_proxy": server.endpoint, "NO_PROXY": excepted}
    with exporter("http://collector.example.org", **around) as sending:
        sending.send(b"abc")
    assert server.requests[0].path == "http://collector.example.org/v1/traces"


def test_a_proxy_that_is_not_supported_is_named():
    with pytest.raises(ValueError, match=r"http_proxy in the environment: .* must be http://"):
        HttpExporter(Endpoint("traces", "http://collector", {"http_proxy": "https://u:geheim@p"}))
