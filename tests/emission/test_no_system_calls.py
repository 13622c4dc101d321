"""A scheduled emission makes no system call: the kernel itself is asked, through strace."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.support.platforms import needs_spool_files
from tests.support.tools import find

# Markers are writes to /dev/null that strace prints whole. Between "begin" and "end" the emitting
# thread does nothing but emit, after a warm-up in which whatever happens once has happened.
_CHILD = """
import os, sys, time
import sidelight
from sidelight import arg, emits

directory, relay, emissions = sys.argv[1], sys.argv[2], int(sys.argv[3])
sidelight.configure(f"sqlite:///{directory}/events.db", relay=relay, otlp=False)

{prelude}
null = os.open("/dev/null", os.O_WRONLY)
for _ in range(200):
    emit()
sidelight.flush(5)
# Room in every pool of Python's allocator, or it would ask the kernel for an arena at some point.
ballast = [bytes(size) for size in range(0, 480, 8) for _ in range(400)]
ballast += [small for n in range(20_000) for small in (object(), float(n))]
del ballast[::2]
time.sleep(0.3)  # the relay comes to rest, spare segments are there
os.write(null, b"MARKER begin")
for _ in range(emissions):
    emit()
os.write(null, b"MARKER end")
"""

_EVENTS = """
@emits("artifact_received", artifact_id=arg.artifact_id, organization_id=arg.organization_id,
       size=arg.size)
def receive(artifact_id, organization_id, size):
    return size

@emits("artifact_read", span=False, artifact_id=arg.artifact_id)
def read(artifact_id):
    return artifact_id

def emit():
    receive("a1", "o1", 5), read("a1"), sidelight.emit("said", artifact_id="a1", size=5)
"""

_SPANS = """
from opentelemetry.sdk.trace import TracerProvider
from sidelight.otel import SpoolSpanProcessor

provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SpoolSpanProcessor())
tracer = provider.get_tracer("app")

def emit():
    with tracer.start_as_current_span("work", attributes={"a": 1}) as span:
        span.add_event("happened", {"b": "c"})
"""

# With a relay in the process, its threads take turns with the emitting one. Handing over the GIL is
# a futex call. The relay's objects may fill the pools, so that the allocator maps an arena.
_HAND_OVER = {"futex"}
_ARENA = re.compile(r"mmap\(NULL, (262144|1048576), .*MAP_ANONYMOUS")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="strace traces Linux")


def traced(directory: Path, relay: str, emissions: int, prelude: str = _EVENTS) -> Counter[str]:
    """Count the system calls of the emitting thread between the markers, by name."""
    strace = find("strace")
    if strace is None:
        pytest.skip("strace is not installed: apt-get install strace (or your system's package)")
    output = directory / "trace"
    command = [strace, "-f", "-q", "-e", "trace=all", "-e", "signal=none", "-o", str(output)]
    code = _CHILD.replace("{prelude}", prelude)
    child = [sys.executable, "-c", code, str(directory), relay, str(emissions)]
    done = subprocess.run([*command, *child], capture_output=True, text=True, timeout=120)
    if done.returncode and "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here (containers need SYS_PTRACE): {done.stderr}")
    assert done.returncode == 0, done.stderr
    trace = output.read_text(errors="replace")
    if relay == "thread":
        trace = "\n".join(line for line in trace.splitlines() if not _ARENA.search(line))
    return between_markers(trace)


def between_markers(trace: str) -> Counter[str]:
    """Count the calls between the markers that the thread which wrote the markers made."""
    calls: Counter[str] = Counter()
    emitting = None
    for line in trace.splitlines():
        thread, _, rest = line.partition(" ")
        if "MARKER begin" in rest:
            emitting = thread
        elif "MARKER end" in rest:
            assert thread == emitting
            return calls
        elif thread == emitting and (call := re.match(r"\s*(\w+)\(", rest)):
            calls[call[1]] += 1
    raise AssertionError("the markers are not in the trace")


@needs_spool_files
@pytest.mark.parametrize("emissions", [500, 1000])
def test_the_emitting_thread_makes_no_system_call(tmp_path, emissions):
    assert traced(tmp_path, "external", emissions) == Counter()


@needs_spool_files
def test_a_span_of_another_provider_makes_none_either(tmp_path):
    """Those of the SDK included: it makes none where no exporter does."""
    assert traced(tmp_path, "external", 500, _SPANS) == Counter()


def test_a_relay_in_the_process_adds_none_of_its_own(tmp_path):
    calls = traced(tmp_path, "thread", emissions := 1000)
    assert set(calls) <= _HAND_OVER
    assert calls.total() < emissions  # a busy machine hands over more often


def test_the_trace_is_read_as_it_should_be():
    trace = (
        '7 write(3, "MARKER begin", 12) = 12\n'
        '8 pread64(4, "", 1) = 0\n'
        '7 write(3, "x", 1 <unfinished ...>\n'
        "8 futex(0x1) = 0\n"
        "7 <... write resumed>) = 1\n"
        '7 write(3, "MARKER end", 10) = 10\n'
        "7 exit_group(0) = ?\n"
    )
    assert between_markers(trace) == Counter(write=1)
