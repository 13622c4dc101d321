"""The pages in a real browser: light and dark, wide and narrow, by keyboard, and live."""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.support.axe import axe
from tests.support.commands import emit
from tests.support.pages import Served, serve
from tests.support.tools import find

ADDRESSES = ["/", "/artifacts", "/artifact/order-3", "/flow", "/points", "/health"]
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    program = find("chromium") or find("chromium-browser") or find("google-chrome")
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        yield launched
        launched.close()


HIDE = """hidden => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
"""Another tab comes to the front, or goes."""


class Watched:
    """A page, with all that it requested and complained about."""

    def __init__(self, browser: Browser, **options: object) -> None:
        self.page: Page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(60_000)
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.on("console", lambda said: self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def close(self) -> None:
        """Close the page and its context."""
        self.page.context.close()


CUT = """[...document.querySelectorAll(".wide")].filter(each =>
    each.innerText && each.scrollWidth > each.clientWidth).map(each => each.innerText)"""
"""The tables of which a part is to be seen by scrolling only."""
OVER = """[...document.querySelectorAll(".st td")].filter(each =>
    each.innerText && each.scrollWidth > each.clientWidth).map(each => each.innerText)"""
"""The cells whose words run into the next cell."""
LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (320, 800, 1400)]


def test_every_page_fits_and_asks_no_other_host(browser, pages: Served):
    watched = Watched(browser)
    page = watched.page
    colours = set()
    for address in ADDRESSES:
        page.goto(pages.address + address)
        for scheme, width in LOOKS:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(wide) == 0, (address, scheme, width)
            assert page.evaluate(CUT) == [], (address, scheme, width)
            assert page.evaluate(OVER) == [], (address, scheme, width)
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            colours.add((scheme, colour))
    assert colours == {("dark", "rgb(20, 22, 26)"), ("light", "rgb(251, 251, 249)")}
    assert watched.hosts == {f"127.0.0.1:{pages.port}"}
    assert watched.complaints == []
    watched.close()


def test_long_waits_in_the_flow_are_seen_whole(browser, pages: Served):
    watched = Watched(browser)
    page = watched.page
    page.goto(f"{pages.address}/flow")
    page.evaluate(
        "document.querySelectorAll('td.nowrap, td .nowrap').forEach("
        "each => each.textContent = '59 min 59 s ago')"
    )
    for width in (500, 1010, 1280, 1600):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(CUT) == [], width
    watched.close()


def test_the_pages_are_accessible(browser, pages: Served):
    script = axe()
    watched = Watched(browser, bypass_csp=True)
    found = []
    for address in ADDRESSES:
        watched.page.goto(pages.address + address)
        watched.page.evaluate(script)
        for scheme, rules in {"light": "", "dark": "{runOnly: ['color-contrast']}"}.items():
            watched.page.emulate_media(color_scheme=scheme)
            result = watched.page.evaluate(f"axe.run({rules})")
            found += [
                (address, scheme, each["id"], each["nodes"][0]["html"][:200])
                for each in result["violations"]
            ]
    assert found == []
    watched.close()


def test_an_artifact_is_found_by_keyboard_alone(browser, pages: Served):
    watched = Watched(browser, timezone_id="Asia/Tokyo", viewport={"width": 320, "height": 900})
    page = watched.page
    page.goto(pages.address)
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "q":
            break
    page.keyboard.type("order-3")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("order-3")
    expect(page.locator(".tl tbody tr")).to_have_count(3)
    began = page.locator(".facts time")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:", began.inner_text())  # with its day, also narrow
    expect(page.get_by_text("times are UTC")).to_be_visible()
    expect(began).to_have_attribute("title", re.compile(r"^\d{4}-.*GMT\+9$"))
    utc = datetime.fromisoformat(began.get_attribute("datetime") or "")
    page.get_by_role("button", name="times in Asia/Tokyo").press("Enter")
    for _ in range(2):
        here = f"{utc.astimezone(ZoneInfo('Asia/Tokyo')):%Y-%m-%d %H:%M:%S}"
        expect(began).to_have_text(re.compile(rf"^{here}\.\d{{3}} GMT\+9$"))
        expect(page.get_by_text("times are UTC")).to_be_hidden()
        page.reload()  # the choice holds for all pages
    watched.close()


def test_a_hostile_value_runs_nowhere(browser, pages: Served):
    watched = Watched(browser)
    dialogs: list[str] = []
    watched.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    watched.page.goto(pages.address)
    watched.page.get_by_role("link", name="<script>alert('x')</script>").first.click()
    expect(watched.page.locator("h1")).to_have_text("<script>alert('x')</script>")
    assert dialogs == []
    watched.close()


def test_the_tail_is_live_until_it_is_paused(browser, tmp_path: Path):
    path = tmp_path / "events.db"
    emit('receive("first"); sidelight.flush(60)', path)
    with serve(path) as served:
        watched = Watched(browser)
        page = watched.page
        page.goto(served.address)
        expect(page.locator("#tail tr")).to_have_count(1)
        emit('receive("<b>second</b>"); sidelight.flush(60)', path)
        expect(page.locator("#tail tr").first).to_contain_text("<b>second</b>", timeout=60_000)
        expect(page.locator("#tail tr")).to_have_count(2)
        page.get_by_role("button", name="live").click()
        expect(page.locator("#live")).to_have_text("○ paused")
        emit('receive("third"); sidelight.flush(60)', path)
        page.wait_for_timeout(3_000)
        expect(page.locator("#tail tr")).to_have_count(2)
        page.get_by_role("button", name="paused").click()
        expect(page.locator("#tail tr").first).to_contain_text("third", timeout=60_000)
        emit("[receive(f'n{n}') for n in range(5000)]; sidelight.flush(60)", path)
        expect(page.locator("#tail tr").first).to_contain_text("n4999", timeout=60_000)
        expect(page.locator("#tail tr")).to_have_count(50)
        expect(page.locator("#more")).to_contain_text(re.compile(r"^[1-4],\d{3} events came too"))
        with page.expect_event("requestfailed", lambda request: "/live" in request.url):
            page.evaluate(HIDE, True)
        with page.expect_request(lambda request: "/live" in request.url):
            page.evaluate(HIDE, False)
        watched.close()
