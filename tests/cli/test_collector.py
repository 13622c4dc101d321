"""A command lets the garbage collector look seldom, and leaves it as it was."""

import gc

import pytest

from sidelight.cli.collector import collecting_seldom


def test_the_collector_looks_seldom_and_then_as_before():
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="end"), collecting_seldom():
        assert gc.isenabled()
        assert gc.get_threshold()[0] > 10 * before[0]
        raise ValueError("end")
    assert gc.get_threshold() == before
