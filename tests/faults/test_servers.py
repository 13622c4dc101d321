"""Row 12: servers that fork workers, and end each worker after some work."""

import contextlib
import http.client
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.support.emitting import Order
from tests.support.ports import free_ports
from tests.support.programs import running, wait_until

CALLS = 10  # of a request, and of a task


def answers(port, path):
    """Return whether a request was answered. Its worker may die, or may not run yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().read() == b"done"
    return False


def workers_of(program):
    """Return the processes that a server has forked."""
    return psutil.Process(program.process.pid).children()


def test_gunicorn(tmp_path, full, randomness, progress, settled):
    """The application is loaded before the fork. Workers end after 5 requests or are killed."""
    store = f"sqlite:///{tmp_path / 'events.db'}"
    requests, (port,) = (1500 if full else 40), free_ports(1)
    command = ["-m", "gunicorn", "--preload", "--workers", "3", "--max-requests", "5"]
    command += ["--bind", f"127.0.0.1:{port}", "--log-level", "error"]
    command += ["tests.support.serving:application"]
    with running(store, order=Order(), command=command) as program:
        until, answered, killed = time.monotonic() + 300, 0, 0
        for number in range(1, requests + 1):
            progress(f"request {number} of {requests}")
            if number % 20 == 0:
                randomness.choice(workers_of(program)).kill()
                killed += 1
            while not (served := answers(port, f"/{number}")) and number == 1:
                assert time.monotonic() < until, program.told()
                time.sleep(0.05)
            answered += served
        program.process.terminate()
        assert program.end() == 0, program.told()
    assert answered > 0.8 * requests
    verdict = settled(
        12, f"gunicorn --preload, {killed} kills", store, program, injected=requests // 5
    )
    assert verdict.acknowledged >= CALLS * answered


def test_uwsgi(tmp_path, full, settled):
    """By default it forks in C, without Python's hooks; the application is loaded before."""
    server = Path(sys.executable).with_name("uwsgi")
    if not server.exists():
        pytest.skip("uWSGI is not installed: pip install pyuwsgi")
    store = f"sqlite:///{tmp_path / 'events.db'}"
    requests, (port,) = (800 if full else 40), free_ports(1)
    options = ["--http-socket", f"127.0.0.1:{port}", "--module", "tests.support.serving"]
    options += ["--processes", "4", "--master", "--need-app", "--die-on-term", "--disable-logging"]
    with running(store, order=Order(), command=[str(server), *options]) as program:
        until = time.monotonic() + 300
        answered = 0
        for number in range(1, requests + 1):
            while not (served := answers(port, f"/{number}")) and number == 1:
                assert time.monotonic() < until, program.told()
                time.sleep(0.05)
            answered += served
        for process in (psutil.Process(program.process.pid), *workers_of(program)):
            process.kill()  # the application's `asyncio.run` has taken uWSGI's signal handlers
        program.end()
    assert answered == requests
    verdict = settled(12, "uWSGI, 4 workers", store, program, injected=4, budget=False)
    assert verdict.acknowledged >= CALLS * answered


def test_celery(tmp_path, full, settled):
    """Each task runs in a process that is forked from one that has emitted."""
    store = f"sqlite:///{tmp_path / 'events.db'}"
    count = 200 if full else 6
    environment = {"FAULTS_TASKS": str(count), "FAULTS_BROKER": str(tmp_path / "broker")}
    command = ["-m", "celery", "-A", "tests.support.tasks", "worker", "--pool", "prefork"]
    command += ["--concurrency", "2", "--max-tasks-per-child", "1", "--loglevel", "ERROR"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    options = {"environment": environment, "stdout": -3, "cwd": tmp_path}
    with running(store, order=Order(), command=command, **options) as program:
        program.emit(20 + CALLS * count, seconds=120.0 + 2.0 * count)
        program.process.terminate()
        try:
            assert program.process.wait(30.0) == 0, program.told()
        except subprocess.TimeoutExpired:
            program.process.send_signal(signal.SIGUSR2)
            # Seldom, billiard's pool waits at its end for a lock of a worker that it has killed.
            wait_until(lambda: "in _help_stuff_finish" in program.told(), 60.0)
            program.process.kill()
        program.end()
    verdict = settled(12, "Celery, a process for each task", store, program, injected=count)
    assert verdict.acknowledged == 20 + CALLS * count
