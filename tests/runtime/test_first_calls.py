"""First calls import nothing and do little: what they need is made by `configure`, or before.

Function calls are counted beside an undecorated twin, because a time would depend on the machine.
`python -m benchmarks.first_calls` measures times.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import json, os, sys
from pathlib import Path
from benchmarks.first_calls import in_a_child

found = []

def measure(call):
    count, imported = [0], []

    def profile(frame, event, _):  # of this thread: the relay may import meanwhile
        count[0] += event in {"call", "c_call"}
        if event == "call" and frame.f_code.co_name == "_find_and_load":
            imported.extend({frame.f_locals["name"]}.difference(sys.modules))

    sys.setprofile(profile)
    call()
    sys.setprofile(None)
    found.append((count[0], imported))

for name, call in in_a_child(Path(sys.argv[2]), sys.argv[1], measure).items():
    found.clear()
    if name == "after a fork":
        if pid := os.fork():
            os.waitpid(pid, 0)
            continue
    call()
    (twin, _), (mine, modules) = found
    print(json.dumps([name, mine - twin, modules]), flush=True)
os._exit(0)
"""
MOST = 2_500
"""Function calls, of Python and of C; they take less than half a millisecond."""


@pytest.mark.parametrize("kind", ["scheduled", "awaited", "awaited in a loop", "joined"])
def test_first_calls_import_nothing_and_do_little(kind, tmp_path):
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", CHILD, kind, str(tmp_path)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [name for name, _, _ in found] == [
        kind,
        "another point",
        "another thread",
        "after a fork",
    ]
    assert {name: modules for name, _, modules in found if modules} == {}
    assert {name: count for name, count, _ in found if count > MOST} == {}
