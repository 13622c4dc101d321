"""`make pictures`: the screenshots of the documentation, of the pages as they are now."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from tests.page.test_browser import OPTIONS
from tests.support.commands import emit
from tests.support.pages import serve
from tests.support.tools import find

from sidelight import Store

DOCS = Path("docs")
EXPECTED = """
[[expect]]
after = "artifact_received"
one_of = ["artifact_completed", "transcription_failed"]
within = "{}"
"""
WITHOUT_PLACE = (
    "(footer, place) => footer.firstChild.data = footer.firstChild.data.replace(place, '')"
)
"""The directory of the stores has another name each time."""
NOTES = """
import random, time
chance = random.Random(7)
say = sidelight.emit

@emits("transcription_completed", start="transcription_started", failure="transcription_failed",
       artifact_id=arg.note, organization_id=arg.owner)
def transcribe(note, owner, fails):
    time.sleep(chance.random() * 0.02)
    if fails:
        raise ValueError("no speech")

for n in range(120):
    note, owner = f"note-{n}", ("acme", "northwind", "globex")[n % 3]
    say("artifact_received", artifact_id=note, organization_id=owner)
    if n % 40 == 39:
        continue
    with __import__("contextlib").suppress(ValueError):
        transcribe(note, owner, n % 10 == 9)
        say("artifact_completed", artifact_id=note, organization_id=owner)
assert sidelight.flush(60)
"""


def main() -> None:
    """Take each picture in a browser of its own size and theme."""
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        notes, voice, map_ = (Path(place) / name for name in ("notes.db", "voice.db", "map.toml"))
        emit(NOTES, notes)
        command = [sys.executable, "-m", "voice_notes", "--database", f"{place}/business.db"]
        subprocess.run([*command, "--store", f"sqlite:///{voice}"], check=True)
        with Store(f"sqlite:///{voice}") as store:
            (artifact,) = store.artifacts(limit=1)
        browser = playwright.chromium.launch(executable_path=find("chromium"), args=OPTIONS)
        for name, path, address, scheme, within in (
            ("flow", notes, "/flow", "dark", "1s"),
            ("now", notes, "/", "light", "1s"),
            ("artifact", voice, f"/artifact/{artifact.artifact_id}", "light", "5m"),
        ):
            map_.write_text(EXPECTED.format(within), encoding="utf-8")
            with serve(path, "--map", map_) as served:
                page = browser.new_page(
                    color_scheme=scheme, viewport={"width": 1180, "height": 1000}
                )
                for _ in range(2):  # the first answer imports, and leaves out more
                    page.goto(served.address + address)
                page.wait_for_timeout(500)
                page.locator("footer").evaluate(WITHOUT_PLACE, f"{place}/")
                page.screenshot(path=DOCS / f"page-{name}.png", full_page=name == "artifact")
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
