"""The door: which hosts, methods and tokens pass."""

import signal
import socket

import httpx
import pytest
from tests.support.commands import sidelight, spawn, url_of
from tests.support.pages import serve
from tests.support.ports import free_ports

TOKEN = "let-me-in-7f3a"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST:{port}", 200),
        ("[::1]:{port}", 200),
        ("localhost", 200),
        ("localhost:1", 421),
        ("evil.example:{port}", 421),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:{port}", 421),
        ("192.168.1.7:{port}", 421),
        ("", 421),
    ],
)
@pytest.mark.parametrize("address", ["/", "/live", "/static/page.js"])
def test_only_known_hosts_pass(pages, host, status, address):
    headers = {"Host": host.format(port=pages.port)}
    with pages.client.stream("GET", address, headers=headers) as answer:
        assert answer.status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_only_get_passes(pages, method):
    assert pages.client.request(method, "/").status_code == 405


def test_a_token_becomes_a_cookie_at_once(store):
    with serve(store, "--token", TOKEN) as served:
        for address in ("/", "/live", "/static/page.js", "/?token=wrong", "/?token="):
            assert served.client.get(address).status_code == 401
        answer = served.client.get(f"/artifacts?q=north&token={TOKEN}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/artifacts?q=north")
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"sidelight-{served.port}=")
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert TOKEN not in cookie
        assert served.client.get("/artifacts?q=north").status_code == 200
        forged = {"Cookie": f"sidelight-{served.port}=wrong"}
        assert httpx.get(served.address, headers=forged).status_code == 401
        answer = served.client.get(f"{served.address}//evil.example?token={TOKEN}")
        assert answer.headers["location"].startswith("/evil.example")


def test_a_token_is_printed_once_and_logged_nowhere(store):
    (port,) = free_ports(1)
    process = spawn("ui", "--store", url_of(store), "--port", port, "--token", TOKEN)
    try:
        assert TOKEN in process.stderr.readline()
        for address in (f"/?token={TOKEN}", f"/nowhere?token={TOKEN}", f"/?token={TOKEN}x"):
            httpx.get(f"http://127.0.0.1:{port}{address}", timeout=60)
        process.send_signal(signal.SIGINT)
        assert TOKEN not in "".join(process.communicate(timeout=60))
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (["--host", "0.0.0.0"], "give a --token as well", 2),  # it is refused
        (["--host", "0.0.0.0", "--token", ""], "write a --token", 2),
        (["--token", " "], "write a --token", 2),
        (["--trace-url", "https://tracing.example"], "write {trace_id}", 2),
        (["--port", "{taken}"], "give another --port", 1),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_remedy(store, options, words, code):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = [
            option.format(taken=taken.getsockname()[1], trace_id="{trace_id}") for option in options
        ]
        said = sidelight("ui", "--store", url_of(store), *given)
    assert said.code == code
    assert words in said.err


def test_the_printed_address_holds_any_token(store):
    """The address is opened as it is printed."""
    (port,) = free_ports(1)
    process = spawn("ui", "--store", url_of(store), "--port", port, "--token", "a&b#c+d %41")
    try:
        address = process.stderr.readline().removeprefix("open ").partition(" (")[0]
        answer = httpx.get(address, timeout=60)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
    finally:
        process.kill()
        process.communicate(timeout=60)
