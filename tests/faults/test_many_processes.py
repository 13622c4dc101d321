"""Row 25: several hundred idle processes share one spool; they hold little and keep their spans."""

import subprocess
import sys

from tests.support.commands import wrong
from tests.support.programs import deliver, nothing_left
from tests.support.receipts import TELLS, Told

MIB = 1024 * 1024
PROGRAM = """
import sys, time
import sidelight
from sidelight.emission import EMITTER
from sidelight.runtime import RUNTIME

store, count, limit, told = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
sidelight.configure(store, spool_limit=limit, otlp=False)
sidelight.emit("parent")
sidelight.flush(60)
begins, is_over = os.pipe(), os.pipe()
for worker in range(count):
    if os.fork() == 0:
        os.close(is_over[1])
        for n in range(3):
            tell(sidelight.emit("worked", artifact_id=worker, n=n))
        os.write(begins[1], b"1")
        os.read(is_over[0], 1)  # idle, until the parent closes the pipe
        is_on_disk = RUNTIME.spool.own[-1].path is not None
        write(f"{told}/{worker}", spans=EMITTER.spans, on_disk=is_on_disk, losses=EMITTER.losses)
        RUNTIME.close(60)
        os._exit(0)
waiting = count
while waiting:
    waiting -= len(os.read(begins[0], 4096))
time.sleep(2.0)  # housekeeping measures the spool
print("ready", flush=True)
sys.stdin.readline()
os.close(is_over[1])
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""


def test_idle_processes_hold_little(store, tmp_path, full, row):
    count = 300 if full else 20
    limit = 1024 * MIB if full else 40 * MIB
    told = tmp_path / "told"
    told.mkdir()
    command = [sys.executable, "-c", TELLS + PROGRAM, store, str(count), str(limit), str(told)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout.readline() == "ready\n"
        said = wrong("spool", "--store", store), wrong("losses", "--store", store)
        it.stdin.close()
    assert it.returncode == 0
    assert said == ("", "")
    deliver(store)
    found = Told.read(told.iterdir())
    assert found.more == [{"spans": True, "on_disk": True, "losses": {}}] * count
    row.of_receipts(23, f"{count} idle processes", store, found, injected=count, others=1)
    nothing_left(store)
