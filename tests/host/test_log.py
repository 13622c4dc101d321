"""Handlers of the application's log that raise: they end no thread of sidelight, and no call."""

import json
import subprocess
import sys

import pytest
from tests.support.platforms import needs_spool_files

pytestmark = needs_spool_files
PROGRAM = """
import json, logging, os, sys, time
import sidelight

url, error = sys.argv[1:]
logged = []


class Handler(logging.Handler):
    def emit(self, record):
        if record.name == "sidelight":
            logged.append(record.getMessage())
            raise eval(error)


logging.getLogger().addHandler(Handler())
sidelight.configure(url)


@sidelight.emits("bad", y=lambda x: 1 / 0)
def bad(x): ...


assert sidelight.emit("first")
assert sidelight.flush(60)
threads = sorted(os.listdir("/proc/self/task"))
for _ in range(2):
    bad(1)
    assert sidelight.flush(60)  # logs in this thread
    time.sleep(2)  # the relay logs in its own
same = sorted(os.listdir("/proc/self/task")) == threads
print(json.dumps([len(logged), same, sidelight.flush(60)]))
"""


@pytest.mark.parametrize("error", ["RuntimeError()", "SystemExit(9)", "KeyboardInterrupt()"])
def test_a_handler_that_raises_ends_nothing(error, tmp_path):
    program = [sys.executable, "-c", PROGRAM, f"sqlite:///{tmp_path / 'events.db'}", error]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    logged, same_threads, flushed = json.loads(ran.stdout)
    assert logged
    assert same_threads
    assert flushed
    assert "Exception ignored" not in ran.stderr
