"""The spool against a model: whatever fails, is killed or loses power, nothing owed is lost."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.support.spool_model import HOT, SpoolModel


class AtItsBound(SpoolModel):
    """With room for few segments."""

    limit = 10 * 12 * 1024


class Hot(SpoolModel):
    """With the segments that are being written on a tmpfs."""

    hot = HOT


@pytest.mark.parametrize("model", [SpoolModel, AtItsBound, Hot])
def test_nothing_owed_is_lost(model, full):
    run_state_machine_as_test(
        model,
        settings=settings(
            max_examples=3000 if full else 30,
            stateful_step_count=60 if full else 40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
