"""Row 3: several processes on one spool and one SQLite file, which come and go.

Some are killed, alone or with their process group, some end in order, some are stopped for a while
(maybe while they hold the store's lock) and go on; some live in pid namespaces of their own.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass

import psutil
from tests.support.emitting import Order
from tests.support.programs import (
    ROOT,
    Program,
    Reports,
    caught_up,
    deliver,
    judge,
    nothing_left,
    running,
)
from tests.support.tools import find

MEMBERS = 8
ROUNDS_FULL, ROUNDS_SHORT = 400, 24
PAUSE = 0.004  # seconds between the calls of one
NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def has_namespaces():
    if find("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


@dataclass
class Member:
    """A program of the crowd."""

    program: Program
    namespace: bool
    stopped: bool = False

    def signal(self, number):
        """Send a signal to the interpreter itself, as `unshare` hands none on."""
        process = psutil.Process(self.program.process.pid)
        with contextlib.suppress(IndexError, psutil.NoSuchProcess):
            (process.children()[0] if self.namespace else process).send_signal(number)


class Crowd:
    """Programs that emit into one store. The crowd keeps the reports of ended programs."""

    def __init__(self, store, randomness, **configure):
        self.store, self.randomness, self.configure = store, randomness, configure
        self.reports, self.did, self.started = Reports(), Counter(), 0
        self.namespaces = has_namespaces()
        self.members = [self.new() for _ in range(MEMBERS)]

    def new(self):
        self.started += 1
        order = Order(first=self.started * 10_000_000, pause=PAUSE, configure=self.configure)
        namespace = self.namespaces and self.started % 3 == 0
        before = NAMESPACE if namespace else ()
        program = Program(self.store, order=order, before=before, start_new_session=True)
        return Member(program, namespace)

    def disturb(self):
        """Kill, end, stop or resume a random member."""
        index = self.randomness.randrange(MEMBERS)
        member = self.members[index]
        action = self.randomness.choice(["kill", "kill group", "end", "stop", "stop"])
        if member.stopped:
            action = self.randomness.choice(["go on", "kill"])
        self.did[action] += 1
        match action:
            case "stop" | "go on":
                member.stopped = action == "stop"
                member.signal(signal.SIGSTOP if member.stopped else signal.SIGCONT)
                return
            case "kill":
                member.program.process.kill()
            case "kill group":
                os.killpg(member.program.process.pid, signal.SIGKILL)
            case "end":
                member.program.emit(1)  # it is up, and listens
                member.signal(signal.SIGUSR1)
        self.bury(member)
        self.members[index] = self.new()

    def bury(self, member):
        member.program.end()
        self.reports = self.reports + member.program.reports

    def end(self):
        for member in self.members:
            if member.stopped:
                member.signal(signal.SIGCONT)
            member.program.emit(1)
            member.signal(signal.SIGUSR1)
        for member in self.members:
            self.bury(member)

    def kill(self):
        for member in self.members:
            if member.program.process.poll() is None:
                member.program.kill()

    @property
    def injected(self):
        return sum(self.did.values())


@contextlib.contextmanager
def crowd(*arguments, **named):
    """Yield a crowd, and kill its programs in the end."""
    them = Crowd(*arguments, **named)
    try:
        yield them
    finally:
        them.kill()


def test_members_come_and_go(store, full, randomness, progress, row):
    rounds = ROUNDS_FULL if full else ROUNDS_SHORT
    with crowd(store, randomness) as them:
        them.members[0].program.emit(1)
        for number in range(rounds):
            progress(f"round {number} of {rounds}")
            time.sleep(randomness.uniform(0.0, 0.3))
            them.disturb()
        them.end()
    deliver(store)
    where = "processes come and go, stop and go on" + ", in pid namespaces" * them.namespaces
    row(3, where, injected=them.injected, verdict=judge(store, reports=them.reports))
    nothing_left(store)


def spawn_relay(store):
    command = [sys.executable, "-m", "sidelight", "relay", "--store", store]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "SIDELIGHT_"))}
    env["PYTHONPATH"] = str(ROOT / "src")
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_external_relays_come_and_go(store, full, randomness, progress, settled):
    """Three relays run at once. Each in turn is killed and replaced."""
    rounds = ROUNDS_FULL // 4 if full else 6
    relays = []
    with crowd(store, randomness, relay="external") as them:
        try:
            them.members[0].program.emit(1)
            relays = [spawn_relay(store) for _ in range(3)]
            for number in range(rounds):
                progress(f"round {number} of {rounds}")
                time.sleep(randomness.uniform(0.2, 1.0))
                them.disturb()
                relay = relays.pop(0)
                relay.kill()
                relay.wait()
                relays.append(spawn_relay(store))
            them.end()
            for relay in relays:
                relay.terminate()
                assert relay.wait(120) in {0, -signal.SIGTERM}  # the youngest may not be up yet
        finally:
            for relay in relays:
                relay.kill()
                relay.wait()
    settled(
        3, "external relays killed", store, reports=them.reports, injected=them.injected + rounds
    )


def test_an_external_relay_reads_along(store, settled):
    """The process has no relay thread. Another process delivers its events while it runs."""
    prelude = "threads = lambda: len(os.listdir('/proc/self/task'))"
    finale = "assert threads() == 1, threads(); time.sleep(60)"
    order = Order(calls=500, configure={"relay": "external"}, prelude=prelude, finale=finale)
    with running(store, order=order) as program:
        program.emit(500)
        relay = spawn_relay(store)
        try:
            caught_up(store, program)
            assert program.process.poll() is None, program.told()
        finally:
            relay.terminate()
            assert relay.wait(120) == 0
    settled(3, "an external relay reads along", store, program, injected=1)
