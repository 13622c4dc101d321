"""The pages tell what the store holds, say what they left out, and let no value become markup."""

import contextlib
import html
import re
import signal
import socket
import threading
import time
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from tests.store.test_processes import sign
from tests.support.commands import emit, spawn, url_of, wait_for
from tests.support.crafted import LEDGER, moment, segment_in
from tests.support.pages import EXPECT, HOSTILE, serve
from tests.support.ports import free_ports
from tests.support.stored import BACKENDS, deliver, ledger, record
from tests.support.stored import store as fill

from sidelight.page import answers
from sidelight.record import frame
from sidelight.spool import Segment
from sidelight.store import OUTCOMES, StoreSink, symbol

ON_EACH = pytest.mark.parametrize("pages", sorted(BACKENDS), indirect=True)
ADDRESSES = [
    "/",
    "/artifacts",
    "/artifacts?q=south",
    "/artifacts?q=size>3",
    "/artifact/order-3",
    f"/artifact/{quote(HOSTILE, safe='')}",
    f"/artifacts?q={quote(HOSTILE, safe='')}",
    "/flow",
    "/flow?steps=order_received+order_packed,packing_failed",
    f"/flow?steps={quote(HOSTILE, safe='')}",
    "/points",
    "/health",
]


def words(text: str) -> str:
    """The words of a page."""
    plain = re.sub(r"<(script|style|svg).*?</\1>|<wbr>", "", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", plain)).split())


@ON_EACH
@pytest.mark.parametrize("address", ADDRESSES)
def test_every_page_answers_and_holds_only_its_own_script(pages, address):
    answer = pages.client.get(address, follow_redirects=True)
    assert answer.status_code == 200, answer.text
    assert re.findall(r"<script[^>]*>", answer.text) == ['<script src="/static/page.js" defer>']
    assert " on" not in "".join(re.findall(r"<[a-z][^>]*>", answer.text)).replace('="on"', "")
    assert "style=" not in answer.text
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@ON_EACH
def test_an_artifact(pages):
    shown = words(pages.text("/artifact/order-3"))
    assert "organization north" in shown
    assert re.search(r"✓ order_received , succeeded size= 3", shown)
    assert re.search(r"▸ packing_started , started", shown)
    assert re.search(r"✓ order_packed , succeeded", shown)
    (trace,) = set(
        re.findall(r'href="(https://tracing\.example/[^"]+)"', pages.text("/artifact/order-3"))
    )
    assert re.fullmatch(r"https://tracing\.example/[0-9a-f]{32}", trace)
    assert "holds no event of the artifact order-99" in words(pages.text("/artifact/order-99", 404))


@ON_EACH
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("", {f"order-{n}" for n in range(20)}),
        ("south", {f"order-{n}" for n in range(0, 20, 2)}),
        ("size>16", {"order-17", "order-18", "order-19"}),
        ("size=4", {"order-4"}),
        ("nothing", set()),
    ],
)
def test_a_search(pages, wanted, found):
    shown = pages.client.get("/artifacts", params={"q": wanted}).text
    assert set(re.findall(r'/artifact/(order-\d+)"', shown)) == found


def test_a_search_shows_what_matches_and_what_was_meant(pages):
    shown = words(pages.text("/artifacts?q=size>18"))
    assert re.search(r"latest event that matches occurred order-19 north order_received ", shown)
    for wanted, meant in (("nort", "organization north"), ("order_19", "artifact order-19")):
        shown = words(pages.text(f"/artifacts?q={wanted}"))
        assert f"Nothing was found for {wanted} ." in shown
        assert f"Did you mean the {meant}?" in shown
    assert "Did you mean" not in words(pages.text("/artifacts?q=zzzzzz"))


@ON_EACH
def test_a_search_by_the_id_leads_to_the_artifact(pages):
    answer = pages.client.get("/artifacts", params={"q": "order-7"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/artifact/order-7")


@pytest.mark.parametrize(
    ("address", "status", "told"),
    [
        ("/artifacts?q=>", 400, "where: '>' is no condition; write name=value"),
        ("/artifacts?q=size>", 400, "where: 'size>' has no value; write one behind >"),
        ("/flow?steps=order_received,,", 400, "steps: a name is empty in 'order_received,,'"),
        ("/flow?steps=a+b+c+d+e+f+g+h+i+j+k", 400, "steps: there are 11; give at most 10"),
        (
            "/flow?steps=order_recieved",
            200,
            "the type order_recieved; did you mean order_received?",
        ),
        ("/flow?steps=<b>", 200, "no event in the store has the type <b>; sidelight counts --by"),
        (
            "/flow?steps=order_received+transcription_completed",
            200,
            "transcription_completed 0 · 0 %",
        ),
    ],
)
def test_what_a_query_asks_in_vain_is_told(pages, address, status, told):
    shown = words(pages.text(address, status))
    assert told in shown
    assert ("has the type" in shown) == ("has the type" in told or "did you" in told)


@ON_EACH
def test_the_flow_and_the_funnel(pages):
    shown = words(pages.text("/flow?steps=order_received+order_packed,packing_failed"))
    assert "order_received 20 · 100 %" in shown
    assert "order_packed or packing_failed 16 · 80 %" in shown
    assert "4 stay here; their last event: order_received (4)" in shown
    assert re.search(r"order_received → packing_started 16 ", shown)
    assert re.search(r"packing_started → packing_failed 1 ", shown)
    latency = shown[shown.index("Between two events") :]
    assert re.search(
        r"order_received → order_packed or packing_failed .* 4 (.* ago|just now)", latency
    )


@ON_EACH
def test_points_and_health(pages):
    shown = words(pages.text("/points"))
    assert re.search(r"__main__:receive 20 ", shown)
    assert re.search(r"order_received 20 ", shown)
    wait_for(lambda: "✓ ok store" in words(pages.text("/health")), 60)  # once the checks have ended
    shown = words(pages.text("/health"))
    assert "all is well" in shown or "→" in shown


def test_a_page_does_not_wait_for_an_endpoint_that_is_silent(store):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with serve(store, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as served:
            first = served.text("/health")
            assert "The checks are running" in first
            assert 'http-equiv="refresh"' in first
            wait_for(lambda: "✗ wrong otlp" in words(served.text("/health")), 60)
            assert 'http-equiv="refresh"' not in served.text("/health")
            time.sleep(6)  # the findings are old then
            again = words(served.text("/health"))
            assert "a newer examination is running" in again
            assert "✗ wrong otlp" in again


@ON_EACH
def test_now(pages):
    shown = words(pages.text("/"))
    assert "order_received" in shown
    assert "Nothing was lost" in shown
    assert re.search(r"process \d+ on \S+ ✓ ended (.* ago|just now) \d{4}-", shown)
    assert 'role="img"' in pages.text("/")


@ON_EACH
def test_what_is_expected_of_an_artifact(pages):
    late = words(pages.text("/artifact/order-3"))
    assert re.search(
        r"✗ late order_received → order_packed or packing_failed within 1 ms \d+\.?\d* ms", late
    )
    assert re.search(r"✓ kept packing_started → order_packed within 1 h \d", late)
    assert re.search(r"✓ order_packed , succeeded ✗ \d+\.?\d* ms later than expected", late)
    overdue = words(pages.text("/artifact/order-17"))
    assert re.search(
        r"✗ overdue order_received → order_packed or packing_failed .* so far", overdue
    )
    assert "later than expected" not in overdue
    waiting = words(pages.text("/artifact/order-15"))
    assert re.search(r"▸ waiting packing_started → order_packed within 1 h .* so far", waiting)


@ON_EACH
def test_what_is_overdue_and_what_waits_for_a_sink(pages, tmp_path):
    shown = words(pages.text("/"))
    for number in range(16, 20):
        last = "order_received (.* ago|just now)"
        waits = rf"✗ overdue order-{number} \w+ order_packed or packing_failed [^✗]* {last}"
        assert re.search(waits, shown), number
    assert "order-15" not in shown[shown.index("Overdue") : shown.index("Sinks")]
    assert re.search("The spool is empty|store nothing", shown)
    path = tmp_path / "events.db"
    emit('receive("first"); sidelight.flush(60)', path)
    spool = {"SIDELIGHT_SPOOL": str(tmp_path / "spool")}
    emit('sidelight.configure(relay="external"); receive("held")', path, **spool)
    with serve(path, **spool) as served:
        shown = words(served.text("/"))
        assert re.search(r"store \d+ bytes (.* ago|just now) ", shown)
        assert "Nothing is expected" in shown


def test_what_is_not_judged_yet_is_told(tmp_path):
    path, map_ = tmp_path / "events.db", tmp_path / "map.toml"
    map_.write_text(EXPECT)
    now = time.time_ns()
    with contextlib.closing(StoreSink(url_of(path))) as sink:
        deliver(sink, [record("order_received", now), sign(now)])
    with serve(path, "--map", map_) as served:
        shown = words(served.text("/"))
    assert re.search("Not judged yet, until .* gives its next sign of life: 1 whose", shown)
    assert "Nothing is overdue" not in shown


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b"no record", r"\d+ bytes it cannot be read; see Health"),
        (
            LEDGER + moment(artifact_id=None),
            r"no event \(\d+ bytes of other records\) (.* ago|just now)",
        ),
    ],
    ids=["unreadable", "note"],
)
def test_a_record_that_is_no_event_waits_too(tmp_path, payload, told):
    path, spool = tmp_path / "events.db", tmp_path / "spool"
    emit('receive("first"); sidelight.flush(60)', path)
    spool.mkdir(mode=0o700)
    header = {"instance": "i", "store": url_of(path), "sinks": ["store"], "resource": {}}
    with contextlib.closing(Segment.create(spool, 1 << 20, header)) as segment:
        segment.write(frame(payload))
    with serve(path, SIDELIGHT_SPOOL=str(spool)) as served:
        shown = words(served.text("/"))
    assert re.search(f"store {told}", shown), shown


@ON_EACH
def test_declared_types_stand_beside_those_that_were_emitted(pages):
    shown = words(pages.text("/points"))
    assert re.search(r"order_received 20 (.* ago|just now) ! not declared", shown)
    assert re.search(r"transcription_completed 0 never \S", shown)


def test_the_live_tail_tells_each_event_once_and_goes_on_where_it_ended(tmp_path):
    path = tmp_path / "events.db"
    emit('receive("first"); sidelight.flush(60)', path)
    with serve(path) as served:
        after = re.search(r'data-after="(\d+)"', served.text("/"))
        assert after is not None

        def read(headers: dict[str, str], address: str, until: str) -> list[str]:
            lines = []
            with served.client.stream("GET", address, headers=headers) as stream:
                assert stream.headers["content-type"].startswith("text/event-stream")
                for line in stream.iter_lines():
                    lines.append(line)
                    if until in line:
                        return lines
            raise AssertionError(lines)

        threading.Timer(0.5, emit, ('receive("second"); sidelight.flush(60)', path)).start()
        lines = read({}, f"/live?after={after[1]}", "/artifact/second")
        assert not any("/artifact/first" in line for line in lines)
        (last,) = [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]
        emit('receive("third"); sidelight.flush(60)', path)
        lines = read({"Last-Event-ID": last}, "/live?after=0", "/artifact/third")
        assert not any("/artifact/second" in line for line in lines)


@ON_EACH
@pytest.mark.parametrize("after", ["", "x", "-1", "9" * 18, "9" * 25, "9" * 5000])
def test_the_live_tail_takes_any_place_to_begin(pages, after):
    with pages.client.stream("GET", "/live", params={"after": after}) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry")
        assert next(line for line in lines if line).startswith((":", "id:"))


def test_ctrl_c_ends_at_once_although_a_page_is_live(store):
    (port,) = free_ports(1)
    process = spawn("ui", "--store", f"sqlite:///{store}", "--port", port)
    assert process.stderr is not None
    assert process.stderr.readline() == f"open http://127.0.0.1:{port}/ (Ctrl-C ends)\n"
    try:
        with httpx.stream("GET", f"http://127.0.0.1:{port}/live", timeout=60) as live:
            next(live.iter_lines())
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in out + err


def test_a_store_that_goes_away_is_told_and_comes_back(tmp_path):
    path = tmp_path / "events.db"
    emit('receive("first"); sidelight.flush(60)', path)
    with serve(path) as served:
        assert "first" in served.text("/artifacts")
        path.rename(tmp_path / "elsewhere.db")
        wait_for(lambda: "✗ wrong store" in words(served.client.get("/health").text), 60)
        (tmp_path / "elsewhere.db").rename(path)
        wait_for(lambda: "first" in served.client.get("/artifacts").text, 60)


def test_the_legend_of_an_artifact_names_every_outcome(pages):
    shown = words(pages.text("/artifact/order-3"))
    for outcome in OUTCOMES:
        assert f"{symbol(outcome)} {outcome}" in shown


def test_the_pages_say_how_far_back_their_answers_reach(pages):
    for address in ("/", "/flow", "/points"):
        assert f"last {answers.DAYS} days" in pages.text(address)
    templates = Path(answers.__file__).with_name("templates")
    for template in templates.iterdir():
        assert not re.search(r"\d days", template.read_text()), template


@ON_EACH
@pytest.mark.parametrize("address", [*ADDRESSES, "/artifact/order-99", "/nowhere"])
def test_no_page_shows_a_backtick(pages, address):
    text = pages.client.get(address, follow_redirects=True).text
    assert "`" not in words(text).replace(HOSTILE, "")


def test_commands_of_findings_losses_and_hints_are_set_as_code(tmp_path):
    url, spool = BACKENDS["sqlite"](tmp_path), tmp_path / "spool"
    reason = "map: `a:f` <b>; see `sidelight docs map`"
    fill(url, [record("received"), ledger(losses={reason: 1}, at=time.time_ns())])
    segment_in(spool, url)
    with serve(url, "--spool", spool) as served:
        now, flow = served.text("/"), served.text("/flow?steps=shipped+received")
        wait_for(lambda: "which has ended" in words(served.text("/health")), 60)
        health = served.text("/health")
    assert "map: <code>a:f</code> &lt;b&gt;; see <code>sidelight docs map</code>" in now
    assert "<code>sidelight relay --once" in health
    assert "<code>sidelight counts" in flow
    assert "`" not in now + flow + health
