"""Row 12: a daemon closes every descriptor, and its own files get the numbers."""

import json
import subprocess
import sys

import pytest

from sidelight import Store

DAEMON = """
import json, os, sys, time
import sidelight
from sidelight.runtime import RUNTIME

directory, forks, emits_before = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
sidelight.configure(f"sqlite:///{directory}/events.db", otlp=False)
ids = [str(sidelight.emit("before", artifact_id="a")) for _ in range(10)]
assert sidelight.flush()
time.sleep(0.5)  # the relay allocates spares
for _ in range(forks):
    if child := os.fork():
        os.waitpid(child, 0)
        os._exit(0)
if emits_before:
    ids.append(str(sidelight.emit("child", artifact_id="a")))
    if not forks:
        RUNTIME.relay.halt(5.0)  # the relay is in no library's call while its files are closed
        time.sleep(0.1)
os.closerange(3, 256)
files = [open(f"{directory}/business-{n}", "w+b", buffering=0) for n in range(40)]
for file in files:
    file.write(b"B" * 2_000_000)
if emits_before and not forks:
    RUNTIME.relay.start()
for n in range(300):
    receipt = sidelight.emit("daemon", artifact_id="a", n=n)
    if receipt:
        ids.append(str(receipt))
    time.sleep(0.002)
time.sleep(0.5)
damaged = []
for file in files:
    try:
        if os.pread(file.fileno(), 3_000_000, 0) != b"B" * 2_000_000:
            damaged.append(file.name)
    except OSError as error:
        damaged.append(f"{file.name}: {error}")
with open(f"{directory}/told", "w") as told:
    json.dump({"ids": ids, "damaged": damaged}, told)
os._exit(0)
"""


@pytest.mark.parametrize("emits_before", [False, True], ids=["idle", "emitting"])
@pytest.mark.parametrize("forks", [1, 2])
def test_a_daemon_keeps_its_files_and_its_events(forks, emits_before, tmp_path):
    command = [sys.executable, "-c", DAEMON, str(tmp_path), str(forks), str(emits_before)]
    subprocess.run(command, check=True, timeout=120)
    told = json.loads((tmp_path / "told").read_text())
    assert told["damaged"] == []
    url = f"sqlite:///{tmp_path / 'events.db'}"
    relay = [sys.executable, "-m", "sidelight", "relay", "--once", "--store", url]
    subprocess.run(relay, check=True, timeout=120)
    with Store(url) as store:
        stored = {event.event_id for event in store.events()}
    assert set(told["ids"]) <= stored
