"""The faulty network of the other tests does what its modes say, and leaves nothing behind."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import psutil
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from tests.support.http_wire import Frames
from tests.support.proxy import Mode, Proxy

HTTP2_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
HTTP2_PING = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + b"12345678"
HTTP2_HEADERS = b"\x00\x00\x03\x01\x04\x00\x00\x00\x01" + b"abc"


class Server:
    """Serves one client at a time on a thread: remembers what it gets, answers by a function."""

    def __init__(self, reply: Callable[[bytes], bytes]) -> None:
        self.received = b""
        self.clients = 0
        self._reply = reply
        self._client: socket.socket | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._thread = threading.Thread(target=self._serve, name="server of a test")
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def hang_up(self) -> None:
        assert self._client
        self._client.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                self._client = client
            except OSError:
                return
            self.clients += 1
            with client:
                try:
                    while data := client.recv(65_536):
                        self.received += data
                        client.sendall(self._reply(data))
                except OSError:
                    continue


@pytest.fixture
def echo() -> Iterator[Server]:
    with closing(Server(lambda data: data)) as server:
        yield server


@pytest.fixture
def proxy(echo: Server) -> Iterator[Proxy]:
    with Proxy(echo.address, drip_delay=0.01) as running:
        yield running


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(proxy.address, timeout=5.0)


def read_all(client: socket.socket) -> bytes:
    data = b""
    while more := client.recv(65_536):
        data += more
    return data


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5.0
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def assert_reset(client: socket.socket) -> None:
    with pytest.raises(ConnectionResetError):
        read_all(client)


def test_pass_carries_everything_both_ways_and_ends_when_the_client_does(proxy, echo):
    payload = bytes(range(256)) * 4_096
    with connect(proxy) as client:
        sender = threading.Thread(
            target=lambda: (client.sendall(payload), client.shutdown(socket.SHUT_WR))
        )
        sender.start()
        assert read_all(client) == payload
        sender.join()
    assert echo.received == payload
    assert eventually(lambda: proxy.open_connections == 0)
    assert proxy.accepted == 1


def test_pass_resets_the_client_where_nobody_listens_behind(proxy, echo):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = unused.getsockname()
    with (
        Proxy(address) as nobody,
        pytest.raises(ConnectionResetError),
        connect(nobody) as client,
    ):
        client.recv(1)


def test_refuse_closes_the_port_and_resets_what_was_open(proxy, echo):
    with connect(proxy) as client:
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        proxy.mode = "refuse"
        assert_reset(client)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.mode = "pass"
    with connect(proxy) as client:
        client.sendall(b"b")
        assert client.recv(1) == b"b"


def test_a_proxy_can_begin_by_refusing(echo):
    with Proxy(echo.address, mode="refuse") as proxy:
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        proxy.mode = "pass"
        with connect(proxy) as client:
            client.sendall(b"b")
            assert client.recv(1) == b"b"


def test_reset_accepts_then_resets(proxy, echo):
    proxy.mode = "reset"
    with pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(1)
    assert proxy.accepted == 1
    assert echo.clients == 0


@pytest.mark.parametrize("connected", ["before", "after"])
def test_silent_reads_and_never_answers(proxy, echo, connected):
    if connected == "after":
        proxy.mode = "silent"
    with connect(proxy) as client:
        if connected == "before":
            client.sendall(b"a")
            assert client.recv(1) == b"a"
            proxy.mode = "silent"
        client.sendall(b"x" * 100_000)
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert b"x" not in echo.received
        proxy.mode = "pass"  # bytes are missing: the connection cannot go on
        client.settimeout(5.0)
        assert_reset(client)


def test_silent_hides_the_end_of_the_target(proxy, echo):
    with connect(proxy) as client:
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        proxy.mode = "silent"
        echo.hang_up()
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_drip_gives_the_reply_byte_by_byte(proxy, echo):
    proxy.mode = "drip"
    with connect(proxy) as client:
        began = time.monotonic()
        client.sendall(b"slowly")
        pieces = [client.recv(100) for _ in range(6)]
        assert b"".join(pieces) == b"slowly"
        assert time.monotonic() - began >= 5 * proxy.drip_delay


def test_a_drip_can_become_a_flood(proxy, echo):
    proxy.drip_delay = 0.2
    proxy.mode = "drip"
    with connect(proxy) as client:
        client.sendall(b"y" * 10_000)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b"y"
        proxy.mode = "pass"
        assert read_all(client) == b"y" * 9_999


@pytest.mark.parametrize("connected", ["before", "after"])
def test_lose_reply_delivers_the_request_only(proxy, echo, connected):
    if connected == "after":
        proxy.mode = "lose_reply"
    with connect(proxy) as client:
        if connected == "before":
            client.sendall(b"a")
            assert client.recv(1) == b"a"
            proxy.mode = "lose_reply"
        client.sendall(b"request")
        assert_reset(client)
    assert echo.received.endswith(b"request")


def test_lose_reply_lets_the_control_frames_of_http2_through():
    def reply(data: bytes) -> bytes:
        return {b"hello": HTTP2_SETTINGS, b"ping": HTTP2_PING}.get(data, HTTP2_PING + HTTP2_HEADERS)

    with (
        closing(Server(reply)) as server,
        Proxy(server.address, mode="lose_reply") as proxy,
        connect(proxy) as client,
    ):
        client.sendall(b"hello")
        assert client.recv(100) == HTTP2_SETTINGS
        client.sendall(b"ping")
        assert client.recv(100) == HTTP2_PING
        client.sendall(b"request")
        assert_reset(client)  # the ping before the reply may be lost with it
        assert server.received == b"hellopingrequest"


@pytest.mark.parametrize("cut", range(9, len(HTTP2_SETTINGS + HTTP2_PING + HTTP2_HEADERS)))
def test_a_reply_is_found_wherever_the_stream_is_cut(cut):
    control = HTTP2_SETTINGS + HTTP2_PING
    stream = control + HTTP2_HEADERS
    frames = Frames()
    before, after = frames.follow(stream[:cut]), frames.follow(stream[cut:])
    if cut <= len(control):
        assert before is None
        assert after == len(control) - cut
    elif cut < len(control) + 9:
        assert before is None  # nobody can tell yet what begins here
        assert after == 0
    else:
        assert before == len(control)
        assert after == 0


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, {}, b""),
        (302, {"Location": "http://127.0.0.1:1/elsewhere"}, b""),
        (429, {"Retry-After": "7"}, b"slow down"),
        (500, {}, b"oops"),
        (599, {}, b""),
    ],
)
def test_answer_gives_what_it_was_told(status, headers, body):
    with Proxy(mode="silent") as proxy:
        proxy.answer(status, headers, body)
        with closing(http.client.HTTPConnection(*proxy.address, timeout=5.0)) as client:
            for number in range(2):  # on one connection
                client.request("POST", f"/v1/traces?{number}", b"data", {"X-Key": "k"})
                response = client.getresponse()
                assert response.status == status
                assert headers.items() <= dict(response.getheaders()).items()
                assert response.read() == body
    assert proxy.accepted == 1
    assert [request.path for request in proxy.requests] == ["/v1/traces?0", "/v1/traces?1"]
    assert {request.method for request in proxy.requests} == {"POST"}
    assert {request.body for request in proxy.requests} == {b"data"}
    assert {request.headers["x-key"] for request in proxy.requests} == {"k"}


def test_answer_understands_chunked_bodies():
    with (
        Proxy(mode="answer") as proxy,
        closing(http.client.HTTPConnection(*proxy.address, timeout=5.0)) as client,
    ):
        client.request("POST", "/", iter([b"one", b"two" * 10]), encode_chunked=True)
        assert client.getresponse().status == 200
    assert proxy.requests[0].body == b"one" + b"two" * 10


def test_answer_a_partial_success():
    with Proxy(mode="answer") as proxy:
        proxy.answer_partial_success(3, "too old")
        with closing(http.client.HTTPConnection(*proxy.address, timeout=5.0)) as client:
            client.request("POST", "/v1/traces", b"")
            response = client.getresponse()
            assert response.status == 200
            assert response.getheader("Content-Type") == "application/x-protobuf"
            body = response.read()
    spans = ExportTraceServiceResponse.FromString(body).partial_success
    assert (spans.rejected_spans, spans.error_message) == (3, "too old")
    logs = ExportLogsServiceResponse.FromString(body).partial_success
    assert (logs.rejected_log_records, logs.error_message) == (3, "too old")


def test_an_answer_can_be_changed_and_ended(proxy, echo):
    proxy.answer(500)
    with closing(http.client.HTTPConnection(*proxy.address, timeout=5.0)) as client:
        for status in (500, 503):
            proxy.answer(status)
            client.request("GET", "/")
            response = client.getresponse()
            response.read()
            assert response.status == status
        proxy.mode = "pass"
        with pytest.raises(ConnectionResetError):
            client.sock.recv(1)
    assert proxy.accepted == 1


def test_open_connections_can_be_reset_in_any_mode(proxy, echo):
    with connect(proxy) as client:
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        proxy.reset_connections()
        assert_reset(client)
    with connect(proxy) as client:
        client.sendall(b"b")
        assert client.recv(1) == b"b"


@pytest.mark.parametrize("mode", ["pass", "drip", "lose_reply"])
def test_a_mode_that_needs_a_target_says_so(mode):
    with pytest.raises(ValueError, match="needs a target"):
        Proxy(mode=mode)


def test_an_unknown_mode_is_refused(proxy):
    with pytest.raises(ValueError, match="no mode 'passs'; there are pass, refuse"):
        proxy.mode = "passs"
    assert proxy.mode == "pass"


def proxies():
    """The threads of proxies: a thread of another kind may come and go meanwhile."""
    return {thread for thread in threading.enumerate() if thread.name == "proxy"}


def test_nothing_is_left_behind(echo):
    process = psutil.Process()
    threads, files = proxies(), process.num_fds()
    modes: list[Mode] = ["pass", "silent", "drip", "lose_reply", "answer", "reset", "refuse"]
    clients: list[socket.socket] = []
    for mode in modes:
        with Proxy(echo.address, mode=mode) as proxy:
            if mode == "reset":
                with pytest.raises(ConnectionResetError), connect(proxy) as client:
                    client.recv(1)
            elif mode != "refuse":
                clients += [connect(proxy) for _ in range(3)]
                clients[-1].send(b"x")
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        proxy.close()  # a second time does nothing
    for client in clients:
        client.close()
    assert proxies() == threads
    assert eventually(lambda: process.num_fds() <= files)
