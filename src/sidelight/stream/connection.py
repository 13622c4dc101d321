"""How to reach a topic: the stream's address, and the properties of librdkafka.

The address holds no secret. Passwords come from the environment or from a file, and stay there: in
no header of a segment, no log line and no error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from sidelight.exceptions import ConfigurationError
from sidelight.settings import stream_url

_PREFIX: Final = "SIDELIGHT_KAFKA_"
_FILE: Final = "SIDELIGHT_KAFKA_PROPERTIES"
_OURS: Final = {
    **dict.fromkeys(
        ("bootstrap.servers", "metadata.broker.list"), "name the brokers in the stream's address"
    ),
    **dict.fromkeys(
        (
            "acks",
            "request.required.acks",
            "enable.idempotence",
            "transactional.id",
            "message.timeout.ms",
            "delivery.timeout.ms",
            "delivery.report.only.error",
        ),
        "leave it out: no event may be lost, and none be sent twice",
    ),
    **dict.fromkeys(
        ("enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset"),
        "leave it out: offsets are committed after the store's transaction",
    ),
    "group.id": "name the group with --group",
}
_DEFAULTS: Final = {"client.id": "sidelight", "log_level": "0"}


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """The brokers and the topic of a stream.

    Attributes:
        servers: ``host:port,host:port``.
        topic: the name of the topic.
        structured: whether messages are CloudEvents in structured mode.
    """

    servers: str
    topic: str
    structured: bool = False

    @classmethod
    def parse(cls, url: str) -> StreamAddress:
        """Read ``kafka://host:port,host:port/topic``.

        Raises:
            ConfigurationError: the URL is none of that form.
        """
        parts = urlsplit(stream_url(url))
        mode = parse_qs(parts.query).get("mode")
        return cls(parts.netloc, parts.path.removeprefix("/"), mode == ["structured"])

    def __str__(self) -> str:
        return f"kafka://{self.servers}/{self.topic}"


def client_properties(address: StreamAddress, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the properties of a client: from a file, then from variables, which win.

    The file is a Java properties file, named by ``SIDELIGHT_KAFKA_PROPERTIES``. A variable
    ``SIDELIGHT_KAFKA_SASL_PASSWORD`` sets ``sasl.password``.

    Raises:
        ConfigurationError: the file cannot be read, or a property is set that sidelight sets.
    """
    given = dict(_DEFAULTS)
    if named := environment.get(_FILE):
        given |= _from_file(Path(named))
    for name, value in environment.items():
        if name.startswith(_PREFIX) and name != _FILE:
            given[name.removeprefix(_PREFIX).lower().replace("_", ".")] = value
    for name in given:
        if name in _OURS:
            raise ConfigurationError(
                setting=f"Kafka's property {name}",
                problem="sidelight sets it",
                remedy=_OURS[name],
            )
    return {**given, "bootstrap.servers": address.servers}


def _from_file(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = os.strerror(error.errno or 0) if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(
            setting=_FILE, problem=f"{path}: {problem}", remedy="name a readable properties file"
        ) from error
    found = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line[0] in "#!":
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise ConfigurationError(
                setting=_FILE, problem=f"line {number} has no =", remedy="write name=value"
            )
        found[name.strip()] = value.strip()
    return found
