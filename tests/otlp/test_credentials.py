"""Credentials: none but the configured ones are sent, and none are shown."""

import http.server
import threading

import pytest
from tests.support.commands import emit, of, sidelight

from sidelight.settings import public_url, without_password

SECRETS = {
    "postgresql://u:geheim@h/d": "postgresql://u:***@h/d",
    "postgresql://u:geheim@h:5432/d?x=1": "postgresql://u:***@h:5432/d?x=1",
    "postgresql://u:@h/d": "postgresql://u:***@h/d",
    "postgresql://u:ge@heim@h/d": "postgresql://u:***@h/d",
    "postgresql://u:ge@he/im@h/d": "postgresql://u:***@h/d",
    "postgresql://u:p?geheim@h/d": "postgresql://u:***@h/d",
    "postgresql://h/d?user=u&password=geheim": "postgresql://h/d?user=u&password=***",
    "postgresql://h/d?%70assword=geheim&x=1": "postgresql://h/d?%70assword=***&x=1",
    "postgresql://h/d?sslpassword=geheim": "postgresql://h/d?sslpassword=***",
    "postgresql://h/d?PASSWORD=geheim": "postgresql://h/d?PASSWORD=***",
}
OPEN = [
    "sqlite:////var/lib/a@b:c/events.db",
    "sqlite:///events.db",
    "postgresql://h:5432/d?options=a@b",
    "postgresql:///d?host=/var/run/postgresql",
    "postgresql://u@h/d",
    "postgresql://[::1]:5432/d",
]


@pytest.mark.parametrize("url", SECRETS)
def test_a_password_is_masked(url):
    assert public_url(url) == SECRETS[url]
    assert "geheim" not in without_password(f"cannot reach {url!r}, nor {url}")
    assert "h" in without_password(url).rpartition("@")[2]


@pytest.mark.parametrize("url", OPEN)
def test_a_url_without_a_password_stays(url):
    assert public_url(url) == url


@pytest.mark.parametrize("way", ["doctor", "counts", "relay", "outbox"])
@pytest.mark.parametrize("secret", ["ge@heim", "ge@heim/x", "ge?x@heim"])
def test_no_command_shows_what_is_behind_an_unescaped_at(way, secret, tmp_path):
    """A driver would take it for the host, and its error would name it."""
    url = f"postgresql://u:{secret}@127.0.0.1:1/d"
    place = ["--store", url, "--spool", tmp_path]
    commands = {
        "doctor": ["doctor", *place],
        "counts": ["counts", *place[:2]],
        "relay": ["relay", "--once", *place],
        "outbox": ["outbox", "status", url],
    }
    said = sidelight(*commands[way])
    assert said.code == 1
    assert "heim" not in said.out + said.err
    assert "write %40 for each @ of the password" in said.err


def test_netrc_does_not_replace_the_configured_authorization(tmp_path, monkeypatch):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            sent.append(self.headers["Authorization"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    sent = []
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password geheim\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Bearer%20configured")
    path = tmp_path / "events.db"
    emit("receive('first')\nassert sidelight.flush(60)", path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert sidelight("doctor", "--otlp", url, *of(path)).code == 0
        server.shutdown()
        thread.join()
    assert sent == ["Bearer configured", None]
