"""Record in memory what your code emits, for assertions in tests.

::

    def test_an_artifact_is_announced():
        with sidelight.testing.capture() as recorded:
            create_artifact(audio, organization="o1")
        event = recorded.one("artifact_received")
        assert event.organization_id == "o1"
        assert recorded.types == ["artifact_received"]

Nothing is written to a spool or a store, and errors of the instrumentation are raised.
"""

from sidelight.testing.recording import Recorded, RecordedEvent, RecordedSpan, capture

__all__ = ["Recorded", "RecordedEvent", "RecordedSpan", "capture"]
