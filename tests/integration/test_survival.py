"""What a process has emitted is in the store, however the process ends."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from tests.support.oracle import check, drain, start

KINDS = {
    "scheduled": "scheduled(n)",
    "awaited": "awaited(n)",
    "scheduled async": "await scheduled_async(n)",
    "awaited async": "await awaited_async(n)",
}

ENDLESS = """
    async def main():
        n = 0
        while True:
            {call}
            acknowledge(n)
            n += 1
    asyncio.run(main())
"""


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_a_random_moment(tmp_path, kind):
    store = tmp_path / "events.db"
    seed = random.randrange(1 << 30)
    print("seed", seed)
    randomness = random.Random(seed)
    acknowledged = []
    for turn in range(4):
        script = ENDLESS.replace("n = 0", f"n = {turn * 1_000_000}").format(call=KINDS[kind])
        child = start(script, store)
        child.read(10)
        time.sleep(randomness.random() * 0.3)
        child.kill()
        assert child.acknowledged
        acknowledged += child.acknowledged
    drain(store)
    assert check(store, acknowledged) >= len(acknowledged)


def test_several_threads_killed(tmp_path):
    store = tmp_path / "events.db"
    child = start(
        """
        def work(base):
            for n in range(base, base + 1_000_000):
                scheduled(n)
                acknowledge(n)
        threads = [threading.Thread(target=work, args=(i * 1_000_000,)) for i in range(4)]
        [t.start() for t in threads]
        """,
        store,
    )
    child.read(10, at_least=3000)
    child.kill()
    drain(store)
    check(store, child.acknowledged)


END = """
    for n in range(500):
        scheduled(n)
        acknowledge(n)
    {end}
"""


AFTER_OURS = """
    from sidelight import runtime
    runtime.atexit.unregister(runtime._end)
    runtime.atexit.register(lambda: scheduled(500))
    runtime.atexit.register(runtime._end)
"""

FROM_A_DAEMON = """
    def endless():
        for n in range(10**6, 10**9):
            scheduled(n)
    threading.Thread(target=endless, daemon=True).start()
"""


@pytest.mark.parametrize(
    "end",
    [
        "sys.exit(3)",
        "raise ValueError('unhandled')",
        "os._exit(3)",
        "os.kill(os.getpid(), 15)",
        "import atexit; atexit.register(lambda: scheduled(500))",
        "import atexit; atexit.register(lambda: 1/0)",
        AFTER_OURS,
        FROM_A_DAEMON,
        "pass",
    ],
)
def test_however_it_ends(tmp_path, end):
    store = tmp_path / "events.db"
    child = start(END.format(end=end.strip()), store)
    child.read(10, at_least=500)
    ended = time.monotonic()
    child.end()
    assert time.monotonic() - ended < 3  # 1 s for us, the rest for a busy machine
    drain(store)
    assert check(store, child.acknowledged) >= 500


def test_an_orderly_end_delivers_before_it(tmp_path):
    store = tmp_path / "events.db"
    child = start("    sidelight.configure(); time.sleep(1)\n" + END.format(end="pass"), store)
    child.read(20, at_least=500)
    assert child.end() == 0
    with sqlite3.connect(store) as connection:
        (stored,) = connection.execute("SELECT count(*) FROM events").fetchone()
    connection.close()
    assert stored == 500


def test_the_next_process_delivers_what_a_dead_one_left(tmp_path):
    store = tmp_path / "events.db"
    child = start(END.format(end="os.kill(os.getpid(), 9)"), store)
    child.read(10, at_least=500)
    assert child.end() == -signal.SIGKILL
    other = start("scheduled(1000); acknowledge(1000); time.sleep(4)", store)
    other.read(10)
    assert other.end(15) == 0
    assert check(store, child.acknowledged + other.acknowledged) == 501


def test_a_locked_store_holds_nobody_up(tmp_path):
    store = tmp_path / "events.db"
    first = start("scheduled(10**7); acknowledge(10**7)", store)
    first.read(10)
    first.end()
    lock = sqlite3.connect(store, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    child = start(
        """
        worst = 0
        for n in range(300):
            t = time.perf_counter()
            (awaited if n % 3 else scheduled)(n)
            worst = max(worst, time.perf_counter() - t)
            acknowledge(n)
        ended = time.monotonic()
        import atexit
        print(int(worst * 1e9) + 10**12, flush=True)
        """,
        store,
    )
    child.read(20, at_least=301)
    ended = time.monotonic()
    assert child.end() == 0
    assert time.monotonic() - ended < 3
    acknowledged = [n for n in child.acknowledged if n < 10**12]
    assert len(acknowledged) == 300
    lock.execute("ROLLBACK")
    lock.close()
    drain(store)
    assert check(store, acknowledged + first.acknowledged) == 301


def test_forked_children_emit_for_themselves(tmp_path):
    store = tmp_path / "events.db"
    child = start(
        """
        scheduled(0)
        acknowledge(0)
        for i in range(1, 9):
            if os.fork() == 0:
                for n in range(i * 1000, i * 1000 + 20):
                    (awaited if i % 2 else scheduled)(n)
                    acknowledge(n)
                os._exit(0)
        scheduled(9)
        acknowledge(9)
        for _ in range(8):
            os.wait()
        """,
        store,
    )
    child.read(20, at_least=8 * 20 + 2)
    assert child.end() == 0
    drain(store)
    assert check(store, child.acknowledged) == 8 * 20 + 2


def spawn_relay(store):
    return subprocess.Popen(
        [sys.executable, "-m", "sidelight", "relay", "--store", f"sqlite:///{store}"],
        env={k: v for k, v in os.environ.items() if not k.startswith("OTEL_")},
        stdout=subprocess.DEVNULL,
    )


def test_an_external_relay_reads_along(tmp_path):
    """With ``relay="external"`` the process has no thread, and another one delivers meanwhile."""
    store = tmp_path / "events.db"
    child = start(
        """
        sidelight.configure(relay="external")
        for n in range(20_000):
            scheduled(n)
            acknowledge(n)
        acknowledge(10**6 + threading.active_count())
        time.sleep(60)
        """,
        store,
    )
    child.read(30, at_least=20_001)
    assert child.acknowledged.pop() == 10**6 + 1
    relay = spawn_relay(store)
    until = time.monotonic() + 30
    stored = 0
    while stored < 20_000 and time.monotonic() < until:
        time.sleep(0.1)
        if store.exists():
            with (
                contextlib.closing(sqlite3.connect(store)) as connection,
                contextlib.suppress(sqlite3.OperationalError),
            ):
                (stored,) = connection.execute("SELECT count(*) FROM events").fetchone()
    relay.terminate()
    assert relay.wait(10) == 0
    child.kill()
    drain(store)
    assert check(store, child.acknowledged) == stored == 20_000
