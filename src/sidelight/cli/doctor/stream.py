"""Check the stream: does the topic exist, and do the brokers answer?"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from sidelight.cli.doctor.findings import Finding
from sidelight.exceptions import ConfigurationError
from sidelight.stream import StreamAddress, look_at_topic

_WITHIN = 5.0  # seconds


def check_stream(url: str, environment: Mapping[str, str]) -> Finding:
    """Ask the brokers for the topic, with the relay's own properties."""
    address = StreamAddress.parse(url)
    if importlib.util.find_spec("confluent_kafka") is None:
        remedy = "pip install 'sidelight[kafka]'"
        return Finding("stream", "wrong", f"{address}: confluent-kafka is not installed", remedy)
    try:
        problem, partitions = look_at_topic(address, environment, _WITHIN)
    except ConfigurationError as error:
        facts = error.facts
        return Finding("stream", "wrong", f"{address}: {facts['problem']}", f"{facts['remedy']}")
    if not problem:
        return Finding("stream", "ok", f"{address}: {partitions} partitions")
    return Finding(
        "stream",
        "wrong",
        f"{address}: {problem}",
        "correct what it says; until then the records stay in the spool",
    )
