"""What `flush` answers: whether the store has everything that was emitted."""

import re
import subprocess
import sys

import pytest
from tests.docs.pages import page, rows

from sidelight.emission.emitter import LOST

LOSES_AN_EVENT = r"(the|that) (event|record)s?(?!'| is kept)\b"

PROGRAM = """
import sys
import sidelight
from sidelight.emission import EMITTER

sidelight.configure(f"sqlite:///{sys.argv[1]}/events.db", otlp=False)
if sys.argv[3] == "emits":
    sidelight.emit("before")
else:
    from sidelight.runtime import RUNTIME
    RUNTIME.close(5.0)
EMITTER.count(sys.argv[2], "a problem")
print(sidelight.flush(60), sidelight.flush(60))
"""


@pytest.mark.parametrize("emits", ["emits", "emits nothing"])
@pytest.mark.parametrize(
    ("reason", "answers"),
    [
        *((reason, "False True") for reason in LOST),
        ("field x not captured", "True True"),
        ("kept in memory: no space left", "True True"),
    ],
)
def test_a_lost_event_is_told_once(reason, answers, emits, tmp_path):
    """A loss that takes no event away is no reason to doubt what was emitted."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), reason, emits]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == answers


REFUSED = """
import sys
import sidelight

if sys.argv[2] == "configured":
    sidelight.configure(f"sqlite:///{sys.argv[1]}/events.db", otlp=False)
print(sidelight.emit("bad type!", artifact_id="a").state, sidelight.flush(60), sidelight.flush(60))
"""


@pytest.mark.parametrize("configured", ["configured", "not configured"])
def test_an_emit_that_is_refused_is_told_once(configured, tmp_path):
    command = [sys.executable, "-c", REFUSED, str(tmp_path), configured]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "lost False True"


def test_the_reasons_are_those_that_lose_an_event():
    """The page of losses says which reasons of the caller's path take an event away."""
    _, _, after = page("reference/losses.md").text.partition("## On the caller's path")
    table, _, _ = after.partition("###")
    lost = {row[0].strip("`") for row in rows(table) if re.match(LOSES_AN_EVENT, row[2])}
    assert lost == {*LOST}
