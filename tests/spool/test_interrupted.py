"""An interrupt at any step of a rotation takes no segment away from the relay."""

import itertools
import random
import sys
from pathlib import Path

import pytest
from tests.spool.test_spool import payloads_of, write
from tests.support.platforms import needs_spool_files

import sidelight
from sidelight.record import frame
from sidelight.spool import Spool

pytestmark = needs_spool_files

ROOM = {
    str(Path(sidelight.__file__).parent / "spool" / f"{name}.py")
    for name in ("writer", "supply", "segment")
}
SIZE = 250_000  # four fill a segment


class Interrupt(BaseException):
    """Stands for Ctrl-C."""


def interrupted(step, call):
    """Interrupt a call at a step (an opcode); return whether the call has so many steps."""
    left = itertools.count(step, -1)

    def trace(frame, event, _):
        if frame.f_code.co_filename not in ROOM:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and next(left) == 0:
            sys.settrace(None)
            raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("provided", [True, False])
def test_at_each_step_of_a_rotation(provided, tmp_path):
    # Every ninth step, because each takes 50 ms; which ninth changes from run to run.
    for step in itertools.count(random.randrange(9), 9):
        spool = Spool(tmp_path / str(step), {"sinks": ["store"]})
        if provided:
            spool.provide()
        sent, numbers = [], itertools.count()

        def send(spool=spool, sent=sent, numbers=numbers):
            payload = b"%06d" % next(numbers) + b"x" * SIZE
            write(spool, payload)
            sent.append(payload)

        while spool.own[0].size - spool.own[0].tell() >= len(frame(b"x" * (SIZE + 6))):
            send()
        came = interrupted(step, send)
        for _ in range(6):  # at least one more rotation
            send()
        kept = [p for segment in spool.own for p in payloads_of(segment)]
        assert [p for p in kept if p in sent] == sent, step
        assert [segment.number for segment in spool.own] == list(range(1, len(spool.own) + 1)), step
        assert spool.position() == (spool.own[-1].number, spool.own[-1].tell())
        assert len(kept) <= len(sent) + 1
        spool.close()
        if not came:
            break
    assert step > 100
