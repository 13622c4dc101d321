"""Where no memory is left, encoding raises MemoryError: no library crashes the process."""

import os
import subprocess
import sys

import pytest

_CHILD = """
import resource
from sidelight.emission.emitter import Emitter, Head
from sidelight.spool.header import encode_header
from sidelight.record import Static, encode, to_json

large = ["x" * 4000] * 10_000
moment = (1, 2, "a", "o", 3, None, 0, 0, 0, {"large": large}, None)
head = Head(Static("made", "shop:make", "scheduled", "succeeded", None))
emitter = Emitter()
with open("/proc/self/statm") as file:
    pages = int(file.read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), -1))
for attempt in (
    lambda: encode(large),
    lambda: to_json(large),
    lambda: encode_header({"large": large}),
    lambda: emitter.payload(head, moment),  # its shortened copy may fit
):
    try:
        attempt()
    except MemoryError:
        print("refused")
    else:
        print("encoded")
"""
_NO_SLACK = {"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "0"}


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is for Linux")
def test_encoding_without_memory_raises_memory_error():
    ran = subprocess.run(
        [sys.executable, "-c", _CHILD],
        env={**os.environ, **_NO_SLACK},
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.split()[:3] == ["refused"] * 3
