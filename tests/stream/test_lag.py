"""How far a group is behind, asked while the broker that knows it changes."""

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from sidelight.exceptions import SinkUnavailableError
from sidelight.stream import lag


class Answering:
    """A consumer whose questions for the committed offsets fail at first."""

    def __init__(self, code, failures):
        self.code, self.failures = code, failures

    def committed(self, places, _):
        if self.failures:
            self.failures -= 1
            raise KafkaException(KafkaError(self.code))
        return [TopicPartition(each.topic, each.partition, 7) for each in places]


MOVING = [
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
]


@pytest.mark.parametrize("code", MOVING)
def test_a_coordinator_that_moves_is_asked_again(code):
    assert lag.reached_of(Answering(code, 2), "topic", [0, 1]) == {0: 7, 1: 7}


def test_it_is_asked_for_a_bounded_time(monkeypatch):
    monkeypatch.setattr(lag, "_ASK_WITHIN", 0.3)
    with pytest.raises(SinkUnavailableError, match="coordinator"):
        lag.reached_of(Answering(MOVING[0], 1_000), "topic", [0])


def test_any_other_error_is_told_at_once():
    asked = Answering(KafkaError.GROUP_AUTHORIZATION_FAILED, 1)
    with pytest.raises(SinkUnavailableError, match="grant Read on it"):
        lag.reached_of(asked, "topic", [0])
