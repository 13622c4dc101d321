"""What `flush` answers: whether the store has everything that was emitted."""

import subprocess
import sys

import pytest

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
        ("no room in the spool", "False True"),
        ("not recorded", "False True"),
        ("field x not captured", "True True"),
        ("kept in memory: no space left", "True True"),
    ],
)
def test_a_lost_event_is_told_once(reason, answers, emits, tmp_path):
    """A loss that takes no event away is no reason to doubt what was emitted."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), reason, emits]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == answers
