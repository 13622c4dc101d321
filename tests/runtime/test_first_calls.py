"""First calls import nothing and do little: what they need is made by `configure`, or before.

So they work where the process may open no more files.

Function calls are counted beside an undecorated twin, because a time would depend on the machine.
`python -m benchmarks.first_calls` measures times.
"""

import json
import os
import re
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


NO_FILES = """
import asyncio, json, os, resource, sys
import sqlalchemy
from sqlalchemy.orm import Session
import sidelight.relay, sidelight.store
from sidelight import arg, emits

_ = sidelight.relay.Relay, sidelight.store.StoreSink  # `configure` imports them

class Refused(Exception):
    pass

for kind in json.loads(sys.argv[2]):  # each in a process that has made no call
    if not (child := os.fork()):
        break
    os.waitpid(child, 0)
else:
    sys.exit()
url = f"sqlite:///{sys.argv[1]}/{kind}.db"
loop = asyncio.new_event_loop()
session = Session(sqlalchemy.create_engine("sqlite://"))
session.execute(sqlalchemy.text("select 1"))
sidelight.configure(url)

@emits("made", artifact_id=arg.a)
def plain(a): return a
@emits("made", start="begun", artifact_id=arg.a, text=lambda a: [a])
def started(a): return a
@emits(failure="made", artifact_id=arg.a)
def failing(a): raise Refused
@emits("made", mode="awaited", artifact_id=arg.a)
def awaited(a): return a
@emits("made", mode="awaited", artifact_id=arg.a)
async def coroutine(a): return a
@emits("made", artifact_id=arg.a)
def generator(a): yield a
@emits("made", transaction=arg.session, artifact_id=arg.a)
def joined(session, a): session.execute(sqlalchemy.text("select 1"))

def fails():
    try:
        failing("a")
    except Refused:
        return
    raise AssertionError

CALLS = {
    "plain": lambda: plain("a"),
    "start": lambda: started("a"),
    "failure": fails,
    "awaited": lambda: awaited("a"),
    "coroutine": lambda: loop.run_until_complete(coroutine("a")),
    "generator": lambda: list(generator("a")),
    "joined": lambda: (joined(session, "a"), session.commit()),
    "emit": lambda: sidelight.emit("made", artifact_id="a"),
    "emit awaited": lambda: sidelight.emit("made", artifact_id="a", mode="awaited"),
    "emit joined": lambda: (sidelight.emit("made", transaction=session), session.commit()),
    "emit refused": lambda: sidelight.emit("made", mode="unknown"),
    "bind": lambda: sidelight.bind(artifact_id="a").__enter__(),
}
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
CALLS[kind]()
resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 1000), most))
plain("later")
sidelight.flush(20)
from sidelight.emission import EMITTER
with sidelight.Store(url) as store:
    print(json.dumps([kind, dict(EMITTER.losses), store.size()]), flush=True)
os._exit(0)
"""
#: How many events each call leaves, besides the later one; 1 where it is not named.
EVENTS = {"start": 2, "emit refused": 0, "bind": 0}
KINDS = re.findall(r'^    "(.+?)": ', NO_FILES, re.MULTILINE)
MAY_BE_LOST = {"not joined", "kept in memory", "cursor not written", "housekeeping failed"}


def test_first_calls_without_a_free_descriptor(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", NO_FILES, str(tmp_path), json.dumps(KINDS)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = {kind: told for kind, *told in map(json.loads, ran.stdout.splitlines())}
    assert found.keys() == {*KINDS}, ran.stderr
    stored = {kind: size - 1 for kind, (_, size) in found.items()}
    assert stored == {kind: EVENTS.get(kind, 1) for kind in KINDS}
    reasons = {
        (kind, each.partition(":")[0]) for kind, (losses, _) in found.items() for each in losses
    }
    unexpected = {(kind, each) for kind, each in reasons if each not in MAY_BE_LOST}
    assert unexpected == {("emit refused", "emit refused")}
