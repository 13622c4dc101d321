"""The end of a runtime: no relay outlives it."""

import threading

from tests.support.children import sidelight_threads
from tests.support.programs import wait_until
from tests.support.telemetry import restore

import sidelight
import sidelight.relay
from sidelight.runtime import RUNTIME
from sidelight.settings import settle


def test_a_relay_that_is_starting_while_the_runtime_closes_ends(tmp_path, monkeypatch):
    """Its imports take longer than `close` waits."""
    made = sidelight.relay.Relay
    closed = threading.Event()

    def close_first(*args, **kwargs):
        RUNTIME.close(0.01)
        closed.set()
        return made(*args, **kwargs)

    monkeypatch.setattr(sidelight.relay, "Relay", close_first)
    restore()
    RUNTIME.settings = settle(f"sqlite:///{tmp_path / 'events.db'}", environment={})
    try:
        sidelight.emit("made", artifact_id="a")
        assert closed.wait(60)
        assert RUNTIME.starting.acquire(timeout=60)  # it has started, or has not
        RUNTIME.starting.release()
        wait_until(lambda: not sidelight_threads())
        assert RUNTIME.relay is None
    finally:
        restore()
