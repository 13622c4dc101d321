"""How far a sink is with a spool: records that are no events are told from events."""

import contextlib

import pytest
from tests.support.crafted import HEAD, LEDGER, moment
from tests.support.stored import NOON

from sidelight.cli.spool.lag import lags_of
from sidelight.record import frame
from sidelight.record.format import SPAN
from sidelight.spool import Segment

NOTES = [LEDGER + moment(time=NOON + n, artifact_id=None) for n in range(150)]
EVENT = HEAD + moment(time=NOON)


@pytest.mark.parametrize(
    ("payloads", "store", "traces"),
    [
        (NOTES[:1], False, False),
        (NOTES[:99], False, False),
        ([*NOTES[:50], EVENT], True, False),
        ([HEAD + moment(time=NOON, flags=SPAN)], True, True),
        (NOTES, True, True),  # more than are read
        ([b"no record"], True, True),
    ],
    ids=["note", "notes", "event", "span", "many", "unreadable"],
)
def test_whether_an_event_may_wait(tmp_path, payloads, store, traces):
    header = {"instance": "i", "sinks": ["store", "traces"], "resource": {}}
    for each in [[], payloads, NOTES[:1]]:
        with contextlib.closing(Segment.create(tmp_path, 1 << 20, header)) as segment:
            for payload in each:
                segment.write(frame(payload))
    found = {lag.sink: lag for lag in lags_of(tmp_path)}
    assert (found["store"].is_wanted, found["traces"].is_wanted) == (store, traces)
    assert found["store"].waiting >= len(b"".join(payloads)) + len(NOTES[0])
    assert found["store"].oldest_ns == NOON
