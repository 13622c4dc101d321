"""Receipts and the watermark: a wait ends with the store's acknowledgement or in time."""

import asyncio
import threading
import time

import pytest

from sidelight.emission import Receipt, Watermark

HERE, NEXT = (1, 100), (1, 200)


@pytest.fixture
def watermark():
    watermark = Watermark()
    watermark.store_answers = True
    watermark.contention.delays_a_wait = lambda **_: False  # whatever else this machine does
    return watermark


@pytest.fixture(params=["wait", "await"])
def waited(request, watermark):
    """Wait on a receipt in either way, and return its state."""

    def wait(position=HERE, deadline=20.0):
        receipt = Receipt(watermark, position, time.time_ns(), 1, deadline)
        assert receipt.state == ("lost" if position is None else "spooled")
        if request.param == "wait":
            receipt.wait()
        else:
            asyncio.run(_awaited(receipt))
        assert str(receipt) == receipt.event_id
        return receipt.state

    return wait


async def _awaited(receipt):
    return await receipt


def advance_soon(watermark, position):
    threading.Timer(0.05, watermark.advance, [position]).start()


@pytest.mark.parametrize("reached", [HERE, (2, 0)])
def test_a_receipt_waits_for_the_store(watermark, waited, reached):
    advance_soon(watermark, reached)
    assert waited() == "stored"


def test_no_receipt_waits_behind_one_that_waited_in_vain(watermark, waited):
    assert waited(HERE, 0.5) == "spooled"  # shorter than that, a busy machine begins no wait
    begun = time.perf_counter()
    assert waited(NEXT) == "spooled"
    watermark.advance((1, 99))
    assert waited(NEXT) == "spooled"
    assert time.perf_counter() - begun < 20
    watermark.advance(HERE)  # as far as that one wanted: a wait is worthwhile again
    advance_soon(watermark, NEXT)
    assert waited(NEXT) == "stored"


def test_no_wait_is_longer_than_its_deadline(watermark, waited):
    begun = time.perf_counter()
    assert waited(deadline=0.05) == "spooled"
    assert time.perf_counter() - begun < 10
    assert not watermark._waiters


@pytest.mark.parametrize("reason", ["contended", "silent"])
def test_a_wait_that_cannot_end_in_time_does_not_begin(watermark, waited, reason):
    watermark.store_answers = reason != "silent"
    watermark.contention.delays_a_wait = lambda **_: reason == "contended"
    watermark.wake_relay = lambda: pytest.fail("nothing is to be woken")
    assert waited(deadline=60) == "spooled"


def test_an_event_loop_that_was_closed_meanwhile_does_no_harm(watermark):
    async def give_up():
        receipt = Receipt(watermark, HERE, time.time_ns(), 1, 20.0)
        task = asyncio.ensure_future(_awaited(receipt))
        await asyncio.sleep(0.01)
        task.cancel()
        waiters = list(watermark._waiters)
        await asyncio.gather(task, return_exceptions=True)
        return waiters

    watermark._waiters += asyncio.run(give_up())
    watermark.advance((9, 0))
    assert not watermark._waiters


def test_a_lost_event_has_an_empty_receipt(watermark, waited):
    assert waited(None) == "lost"
    assert str(Receipt(watermark, None, time.time_ns(), 1, 1.0)) == ""
