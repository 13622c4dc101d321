"""What sidelight keeps on other operating systems, seen by taking their missing names away."""

import json
import subprocess
import sys

import pytest
from tests.support.platforms import PLATFORMS, seen_as

from sidelight import Store

EMITS = """
import sys, threading
import sidelight
from sidelight import arg, emits
sidelight.configure("sqlite:///events.db")

@emits("order_received", artifact_id=arg.number)
def receive(number):
    return number

threads = [threading.Thread(target=lambda: [receive(n) for n in range(100)]) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
SPAWNS = """
import multiprocessing
import sidelight

def work(number):
    sidelight.emit("worked", artifact_id=number)
    assert sidelight.flush(100)

if __name__ == "__main__":
    sidelight.configure("sqlite:///events.db")
    pool = [multiprocessing.get_context("spawn").Process(target=work, args=[n]) for n in range(3)]
    for child in pool:
        child.start()
    for child in pool:
        child.join()
"""
REFUSES = """
from sidelight.record import ledger_frame
from sidelight.runtime import RUNTIME
RUNTIME.spool.append(ledger_frame({"costs": {"p": {"count": []}}}, 1, 1))
"""
STORE = ("--store", "sqlite:///events.db")
DELIVERS = "assert sidelight.flush(100)"
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
REFUSED = [
    f"import sidelight; sidelight.configure('sqlite:///events.db', {option})"
    for option in ("relay='external'", "outboxes=['sqlite:///app.db']")
]


def run(program, platform, tmp_path, *arguments):
    how = ("-c", program) if program else ("-m", "sidelight", *arguments)
    return subprocess.run(
        [sys.executable, "-W", "error", *how],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=tmp_path,
        env=seen_as(platform),
    )


def stored(tmp_path):
    with Store(f"sqlite:///{tmp_path}/events.db") as store:
        return len([*store.events()])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_events_are_delivered_in_the_process(platform, tmp_path):
    """Twice configured: what a system does not keep is said once in a process."""
    done = run(
        EMITS + "sidelight.configure('sqlite:///events.db')\n" + DELIVERS, platform, tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the spool lies in memory") == (platform == "windows")
    assert done.stderr.count("\n") == (platform == "windows")
    assert stored(tmp_path) == 300


def test_macos_adopts_what_a_killed_process_left(tmp_path):
    assert run(EMITS + DIES, "darwin", tmp_path).returncode == -9
    relayed = run("", "darwin", tmp_path, "relay", "--once", *STORE)
    assert relayed.returncode == 0, relayed.stderr
    assert stored(tmp_path) == 300
    left = [each.name for each in (tmp_path / "events.db-spool").iterdir()]
    assert not [name for name in left if name.endswith(".lock")], (
        "lock files go with their segments"
    )


def test_children_on_windows_deliver_their_own_records(tmp_path):
    """A child by spawn has no fork hooks and no segment of its parent."""
    (tmp_path / "program.py").write_text(SPAWNS, "utf-8")
    done = run(
        "import runpy; runpy.run_path('program.py', run_name='__main__')", "windows", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert stored(tmp_path) == 3


def test_windows_keeps_what_the_store_refuses(tmp_path):
    """The quarantine needs no locks, so refused records do not lie in memory."""
    done = run(EMITS + REFUSES + "sidelight.flush(100)", "windows", tmp_path)
    assert "refused by store" in done.stderr, done.stderr
    assert "not kept" not in done.stderr
    listed = run("", "windows", tmp_path, "spool", "quarantined", "--json", *STORE)
    assert len(listed.stdout.splitlines()) == 1, listed.stderr


def test_windows_refuses_what_needs_a_spool_in_files(tmp_path):
    refused = [run(each, "windows", tmp_path) for each in REFUSED]
    refused += [run("", "windows", tmp_path, *each) for each in (["relay"], ["spool"])]
    for each in refused:
        assert each.returncode
        assert "the spool lies in memory" in " ".join(each.stderr.split())
    assert not [*tmp_path.iterdir()]


def test_the_doctor_says_what_is_not_kept(tmp_path):
    for platform, said in (
        ("windows", {"the spool lies in memory", "CPU clock"}),
        (
            "darwin",
            {"a fork in C", "a network filesystem", "spool was moved", "SIGSTOP", "CPU clock"},
        ),
        ("linux", set()),
    ):
        doctor = run("", platform, tmp_path, "doctor", "--json")
        told = [json.loads(line) for line in doctor.stdout.splitlines()]
        notes = [each["message"] for each in told if each["check"] == "system"]
        assert len(notes) == len(said)
        assert all(any(words in note for note in notes) for words in said)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_disabled_code_is_the_function_itself(platform, tmp_path):
    program = """
import os
os.environ["SIDELIGHT_DISABLED"] = "1"
from sidelight import emits
def plain(): pass
assert emits("a_b")(plain) is plain
"""
    done = run(program, platform, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
