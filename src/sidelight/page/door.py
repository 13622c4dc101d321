"""The door of the pages: which requests pass, and the headers that every answer carries."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none';"
    " form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where the pages listen, and whom the door lets in.

    Attributes:
        host: the address to listen on.
        port: the port.
        token: None lets every process of this machine in. Any other host than loopback needs one.
    """

    host: str = "127.0.0.1"
    port: int = 8333
    token: str | None = field(default=None, repr=False)

    @property
    def cookie(self) -> str:
        """The name of the cookie; each port has its own, because cookies know no ports."""
        return f"sidelight-{self.port}"

    def knows(self, host: str) -> bool:
        """Return whether a Host header names this server.

        Another name may be one that an attacker's DNS server resolves to this address (DNS
        rebinding). A literal address cannot be rebound.
        """
        name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        if not name:
            name, port = host, ""
        if port and port != str(self.port):
            return False
        name = name.lower()
        if name in _LOOPBACK or name == self.host.lower():
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return self.token is not None


class Guarded:
    """An ASGI application behind the door.

    Args:
        site: the application.
        door: its door.
    """

    def __init__(self, site: ASGIApp, door: Door) -> None:
        self._site = site
        self._door = door
        self._session = secrets.token_urlsafe(32)  # the token itself is in no cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, or answer it here."""
        if scope["type"] != "http":
            await self._site(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._refusal(scope) or self._exchange(scope)
        await (answer or self._site)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        if not self._door.knows(Headers(scope=scope).get("host", "")):
            return PlainTextResponse("this host is not known here", status_code=421)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("only GET", status_code=405, headers={"Allow": "GET, HEAD"})
        return None

    def _exchange(self, scope: Scope) -> Response | None:
        """Take the token out of the address, and give a cookie for it; refuse all others."""
        token = self._door.token
        if token is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if any(secrets.compare_digest(each.encode(), token.encode()) for each in given):
            rest = urlencode([item for item in query if item[0] != "token"])
            path = "/" + scope["path"].lstrip("/\\")
            answer = RedirectResponse(f"{path}?{rest}" if rest else path, status_code=303)
            answer.set_cookie(self._door.cookie, self._session, httponly=True, samesite="strict")
            return answer
        try:
            held = SimpleCookie(Headers(scope=scope).get("cookie", "")).get(self._door.cookie)
        except CookieError:
            held = None
        if held is not None and secrets.compare_digest(held.value.encode(), self._session.encode()):
            return None
        return PlainTextResponse(
            'open the address that "sidelight ui" printed: it holds the token', status_code=401
        )
