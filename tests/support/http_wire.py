"""HTTP for the proxy: requests to answer, and the beginning of a reply in HTTP/2."""

import asyncio
import http
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

_CHUNK = 65_536
_FRAME_HEAD = 9
_SETTINGS_FRAME = 0x4
_REPLY_FRAMES = frozenset({0x0, 0x1})  # DATA, HEADERS


@dataclass(frozen=True, slots=True)
class Request:
    """A request that the proxy answered; names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the proxy itself."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def encode(self) -> bytes:
        """The bytes on the wire."""
        known = self.status in http.HTTPStatus.__members__.values()
        reason = http.HTTPStatus(self.status).phrase if known else "Unknown"
        lines = [f"HTTP/1.1 {self.status} {reason}"]
        lines += [f"{name}: {content}" for name, content in self.headers.items()]
        lines += [f"Content-Length: {len(self.body)}", "", ""]
        return "\r\n".join(lines).encode("latin-1") + self.body


class Frames:
    """Follows a target's bytes, to tell a reply from what HTTP/2 says about the connection."""

    def __init__(self) -> None:
        self._http2: bool | None = None
        self._head = b""
        self._payload_left = 0
        self._in_reply = False

    def follow(self, data: bytes) -> int | None:
        """The offset in these bytes at which a reply begins or goes on; None without a reply."""
        if self._http2 is None:
            self._http2 = data[3:4] == bytes([_SETTINGS_FRAME]) and data[5:9] == bytes(4)
        if not self._http2:
            return 0
        found: int | None = None
        at = 0
        while at < len(data):
            began = at
            if self._payload_left:
                step = min(self._payload_left, len(data) - at)
                self._payload_left -= step
            else:
                self._in_reply = False
                step = min(_FRAME_HEAD - len(self._head), len(data) - at)
                self._head += data[at : at + step]
                if len(self._head) == _FRAME_HEAD:
                    self._payload_left = int.from_bytes(self._head[:3])
                    self._in_reply = self._head[3] in _REPLY_FRAMES
                    self._head = b""
            at += step
            if self._in_reply and found is None:
                found = began
        return found


class Stream:
    """The bytes of one client, in the pieces of HTTP."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._buffer = b""

    async def until(self, end: bytes) -> bytes:
        """Everything before the mark, which is skipped; nothing where the client has left."""
        while end not in self._buffer:
            more = await receive(self._client)
            if not more:
                return b""
            self._buffer += more
        piece, _, self._buffer = self._buffer.partition(end)
        return piece

    async def exactly(self, size: int) -> bytes:
        """Read a number of bytes."""
        while len(self._buffer) < size:
            more = await receive(self._client)
            if not more:
                raise ConnectionResetError("the client left in the middle of a request")
            self._buffer += more
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        return piece

    async def chunks(self) -> bytes:
        """A body that is sent in chunks."""
        body = b""
        while size := int((await self.until(b"\r\n")).split(b";")[0] or b"0", 16):
            body += await self.exactly(size)
            await self.exactly(2)
        while await self.until(b"\r\n"):
            pass  # trailers
        return body


async def receive(source: socket.socket) -> bytes:
    """The next bytes; none at the end."""
    return await asyncio.get_running_loop().sock_recv(source, _CHUNK)


async def send(to: socket.socket, data: bytes) -> None:
    """All of these bytes."""
    await asyncio.get_running_loop().sock_sendall(to, data)
