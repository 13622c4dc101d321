"""A faulty network: a TCP proxy on loopback whose behaviour a test changes while it runs.

::

    with Proxy(collector.http_address) as proxy:
        ...                                  # send to proxy.endpoint
        proxy.mode = "silent"                # from now on without an answer
        proxy.answer(429, {"Retry-After": "1"})
        proxy.mode = "pass"

===========  =====================================================================================
pass         Everything goes through. Without a listener behind the proxy: reset.
refuse       The listening socket is closed, as where no server runs.
reset        A connection is accepted and reset at once; a client may see that in ``connect()``.
silent       A connection is accepted and read, and never answered; nothing reaches the target.
drip         The reply comes one byte at a time, ``drip_delay`` seconds apart.
lose_reply   The target gets the request; instead of its reply the client gets a reset. HTTP/2's
             control frames go through, without which a gRPC client sends no request at all.
answer       The proxy itself answers HTTP/1.1 requests as ``answer()`` told it to, and keeps them
             in ``requests``.
===========  =====================================================================================

A change holds for open connections, too. "pass", "silent", "drip" and "lose_reply" take hold of
their next bytes; "refuse", "reset" and "answer" reset them, and so does the end of "silent" and of
"answer", as bytes are missing by then. Once the assignment returns, the change is in force.

TLS goes through all but "answer"; a TLS connection that begins under "lose_reply" ends with its
handshake.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Literal, Self, get_args

from tests.support.http_wire import Frames, Reply, Request, Stream, receive, send
from tests.support.ports import LOOPBACK, free_ports

Mode = Literal["pass", "refuse", "reset", "silent", "drip", "lose_reply", "answer"]

_ATTEMPTS_AT_PORTS = 5
_NEEDS_TARGET: frozenset[Mode] = frozenset({"pass", "drip", "lose_reply"})
_RESETS_OPEN: frozenset[Mode] = frozenset({"refuse", "reset", "answer"})
_LEAVES_GAPS: frozenset[Mode] = frozenset({"silent", "answer"})
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """One listening port in front of one target, served by one thread.

    Attributes:
        requests: what the mode "answer" has answered.
        accepted: how many connections.
        struck: how often something was reset, swallowed, dripped, lost or answered by the proxy.
    """

    def __init__(
        self,
        target: tuple[str, int] | None = None,
        *,
        mode: Mode = "pass",
        drip_delay: float = 0.05,
        port: int | None = None,
    ) -> None:
        """Prepare one; it starts with ``start()`` or on entering a ``with`` block.

        Args:
            target: Host and port of the server behind; none is needed for a mode that uses none.
            mode: How it begins.
            drip_delay: Seconds between two bytes of a reply in the mode "drip".
            port: The port that the server behind tells its clients; by default any.
        """
        self._target = target
        self._check(mode)
        self.drip_delay = drip_delay
        self.requests: list[Request] = []
        self.accepted = 0
        self.struck = 0
        self._mode: Mode = mode
        self._reply = Reply()
        self._port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._listener: socket.socket | None = None
        self._open: set[asyncio.Task[bool]] = set()
        self._errors: list[BaseException] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port for clients; they stay the same in all modes."""
        if self._port is None:
            raise RuntimeError("the proxy has no port before its start")
        return LOOPBACK, self._port

    @property
    def endpoint(self) -> str:
        """The address as a URL, for OTEL_EXPORTER_OTLP_ENDPOINT with either protocol."""
        host, port = self.address
        return f"http://{host}:{port}"

    @property
    def mode(self) -> Mode:
        """How it behaves; assign to change it."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._check(mode)
        if self._loop:
            self._in_loop(self._switch(mode))
        else:
            self._mode = mode

    def answer(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        """Answer every request with this from now on (the mode "answer")."""
        self._reply = Reply(status, headers or {}, body)
        self.mode = "answer"

    def answer_partial_success(self, rejected: int, message: str) -> None:
        """Answer 200 to OTLP over HTTP, and say that some of the spans or log records were refused.

        The messages for spans and for log records look the same on the wire.
        """
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415
            ExportTracePartialSuccess,
            ExportTraceServiceResponse,
        )

        response = ExportTraceServiceResponse(
            partial_success=ExportTracePartialSuccess(
                rejected_spans=rejected, error_message=message
            )
        )
        headers = {"Content-Type": "application/x-protobuf"}
        self.answer(200, headers, response.SerializeToString())

    def reset_connections(self) -> None:
        """Reset all open connections, in any mode."""
        self._in_loop(self._reset_open())

    def start(self) -> None:
        """Take a port and serve it."""
        if self._loop:
            raise RuntimeError("the proxy runs already")
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        try:
            self._in_loop(self._take_port())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Reset what is open and end the thread; raises what went wrong inside the proxy."""
        if not (self._loop and self._thread):
            return
        self._in_loop(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None
        if self._errors:
            raise self._errors.pop()

    def _check(self, mode: Mode) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"no mode {mode!r}; there are {', '.join(get_args(Mode))}")
        if mode in _NEEDS_TARGET and self._target is None:
            raise ValueError(f"the mode {mode!r} needs a target")

    def _in_loop(self, work: Coroutine[Any, Any, None]) -> None:
        if self._loop is None:
            work.close()
            raise RuntimeError("the proxy does not run")
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10.0)

    # What follows runs in the proxy's own thread.

    async def _take_port(self) -> None:
        for attempts_left in reversed(range(_ATTEMPTS_AT_PORTS)):
            self._port = self._port or free_ports(1)[0]
            try:
                if self._mode != "refuse":
                    self._listen()
            except OSError:
                if not attempts_left:
                    raise
                self._port = None
            else:
                return

    async def _stop(self) -> None:
        self._stop_listening()
        await self._reset_open()

    async def _switch(self, mode: Mode) -> None:
        before, self._mode = self._mode, mode
        if before == mode:
            return
        if mode == "refuse":
            self._stop_listening()
        if mode in _RESETS_OPEN or before in _LEAVES_GAPS:
            await self._reset_open()
        if before == "refuse":
            self._listen()

    def _listen(self) -> None:
        self._listener = socket.create_server(self.address, backlog=128)
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _stop_listening(self) -> None:
        if self._listener:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _reset_open(self) -> None:
        connections = set(self._open)
        for connection in connections:
            connection.cancel()
        if connections:
            await asyncio.wait(connections)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # it has gone again
        self.accepted += 1
        connection = asyncio.get_running_loop().create_task(self._serve(client))
        self._open.add(connection)
        connection.add_done_callback(self._ender(client))

    def _ender(self, client: socket.socket) -> Callable[[asyncio.Task[bool]], None]:
        """Closes the client's socket, even of a connection that was cancelled before it began."""

        def end(connection: asyncio.Task[bool]) -> None:
            self._open.discard(connection)
            error = None if connection.cancelled() else connection.exception()
            if error:
                self._errors.append(error)
            in_order = not connection.cancelled() and not error and connection.result()
            _close(client, reset=not in_order)

        return end

    async def _serve(self, client: socket.socket) -> bool:
        """Serve one client; did the connection end in good order (and not by a reset)?"""
        mode = self._mode
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if mode == "reset":
                self.struck += 1
                return False
            if mode == "silent":
                while await receive(client):
                    self.struck += 1
                return True
            if mode == "answer":
                return await self._answer(client)
            return await self._relay(client)
        except OSError:
            return False

    async def _relay(self, client: socket.socket) -> bool:
        if self._target is None:
            return False
        loop = asyncio.get_running_loop()
        in_order = False
        family = socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET
        target = socket.socket(family, socket.SOCK_STREAM)
        try:
            target.setblocking(False)
            await loop.sock_connect(target, self._target)
            target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._forward_requests(client, target))
                directions.create_task(self._forward_replies(target, client))
            in_order = True
        except* OSError:
            in_order = False
        finally:
            _close(target, reset=not in_order)
        return in_order

    async def _forward_requests(self, client: socket.socket, target: socket.socket) -> None:
        while data := await receive(client):
            if self._mode == "silent":
                self.struck += 1
            else:
                await send(target, data)
        target.shutdown(socket.SHUT_WR)

    async def _forward_replies(self, target: socket.socket, client: socket.socket) -> None:
        frames = Frames()
        while data := await receive(target):
            reply_begins = frames.follow(data)
            sent = 0
            while sent < len(data):
                upto = len(data)
                match self._mode:
                    case "silent":
                        self.struck += 1
                        break
                    case "lose_reply" if reply_begins is not None:
                        await send(client, data[sent:reply_begins])
                        self.struck += 1
                        raise ConnectionResetError("the reply is lost")
                    case "drip":
                        self.struck += 1
                        upto = sent + 1
                await send(client, data[sent:upto])
                sent = upto
                if self._mode == "drip":
                    await asyncio.sleep(self.drip_delay)
        if self._mode != "silent":
            client.shutdown(socket.SHUT_WR)

    async def _answer(self, client: socket.socket) -> bool:
        stream = Stream(client)
        while head := await stream.until(b"\r\n\r\n"):
            first, *lines = head.decode("latin-1").split("\r\n")
            method, path, _ = first.split(" ", 2)
            pairs = (line.split(":", 1) for line in lines if line)
            headers = {name.strip().lower(): content.strip() for name, content in pairs}
            if headers.get("transfer-encoding", "").lower() == "chunked":
                body = await stream.chunks()
            else:
                body = await stream.exactly(int(headers.get("content-length", 0)))
            self.requests.append(Request(method, path, headers, body))
            self.struck += 1
            await send(client, self._reply.encode())
            if headers.get("connection", "").lower() == "close":
                break
        client.shutdown(socket.SHUT_WR)
        return True


def _close(connection: socket.socket, *, reset: bool) -> None:
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    connection.close()
