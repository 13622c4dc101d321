"""Check the stream: does the topic exist, do the brokers answer, how far are the consumers?"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping

from sidelight.cli.doctor.findings import Finding
from sidelight.cli.spool.commands import as_command
from sidelight.exceptions import ConfigurationError, SinkUnavailableError
from sidelight.store import number, plural
from sidelight.stream import StreamAddress

_WITHIN = 5.0  # seconds


def check_stream(
    url: str, environment: Mapping[str, str], group: str | None = None
) -> Iterator[Finding]:
    """Ask the brokers for the topic and the group, with the relay's own properties."""
    address = StreamAddress.parse(url)
    if importlib.util.find_spec("confluent_kafka") is None:
        remedy = "pip install 'sidelight[kafka]'"
        yield Finding("stream", "wrong", f"{address}: confluent-kafka is not installed", remedy)
        return
    from sidelight.stream import check_properties, look_at_topic  # noqa: PLC0415  # need the library

    try:
        check_properties(address, environment)
        problem, partitions = look_at_topic(address, environment, _WITHIN)
    except ConfigurationError as error:
        facts = error.facts
        yield Finding("stream", "wrong", f"{address}: {facts['problem']}", f"{facts['remedy']}")
        return
    if problem:
        remedy = "correct what it says; until then the records stay in the spool"
        yield Finding("stream", "wrong", f"{address}: {problem}", remedy)
        return
    yield Finding("stream", "ok", f"{address}: {plural(partitions, 'partition')}")
    if group is not None:
        yield _check_group(address, environment, group)


def _check_group(address: StreamAddress, environment: Mapping[str, str], name: str) -> Finding:
    from sidelight.stream import look_at_group  # noqa: PLC0415

    try:
        group = look_at_group(address, environment, name)
    except SinkUnavailableError as error:
        return Finding("consumers", "wrong", f"{name}: {error.facts['problem']}")
    behind = {partition: lag for partition, lag in sorted(group.lag.items()) if lag}
    text = f"{name}: {plural(group.members, 'consumer')}, "
    text += f"{plural(sum(behind.values()), 'message')} behind"
    if behind:
        each = ", ".join(
            f"partition {partition}: {number(lag)}" for partition, lag in behind.items()
        )
        text += f" ({each})"
    if behind and group.members:
        text += f", {number(group.rate)}/s stored"
    if behind and not group.members:
        return Finding(
            "consumers", "wrong", text, f"start `{as_command('consume', str(address), group=name)}`"
        )
    return Finding("consumers", "ok", text)
