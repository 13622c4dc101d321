"""The messages of a topic as an AsyncAPI 3 document: what other programs read in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec

from sidelight.record import Mode
from sidelight.store import OUTCOMES
from sidelight.stream.connection import StreamAddress
from sidelight.stream.messages import JSON, PROCESS_TYPE, ProcessNote

if TYPE_CHECKING:
    from sidelight.record import Declared

_BINDING: Final = "0.5.0"
_TEXT: Final = {"type": "string"}
_COMMON: Final[Mapping[str, Any]] = {
    "content-type": {"const": JSON.decode()},
    "ce_specversion": {"const": "1.0"},
    "ce_id": {"type": "string", "format": "uuid", "description": "A UUIDv7; unique."},
    "ce_source": {"type": "string", "format": "uri-reference", "description": "The service."},
    "ce_time": {"type": "string", "format": "date-time", "description": "When it occurred."},
}
_OF_THE_PROCESS: Final[Mapping[str, Any]] = {  # a replayed event has neither
    "ce_instance": {"type": "string", "description": "The process that emitted it."},
    "ce_host": {"type": "string", "description": "The host of the process."},
}
_OF_EVENTS: Final[Mapping[str, Any]] = {
    "ce_point": {"type": "string", "description": "The function that emitted it."},
    "ce_mode": {"enum": sorted(get_args(Mode))},
    "ce_outcome": {"enum": sorted(OUTCOMES)},
}
_OPTIONAL: Final[Mapping[str, Any]] = {
    "ce_subject": {"type": "string", "description": "The artifact's id; also the key."},
    "ce_organization": {"type": "string", "description": "The organization's id."},
    "ce_duration": {"type": "string", "pattern": "^[0-9]+$", "description": "Nanoseconds."},
    "ce_call": {"const": "open", "description": "The call has begun, and has not ended."},
    "ce_traceparent": {"type": "string", "description": "The W3C trace context."},
    "traceparent": _TEXT,
}
_IDS: Final = {"artifact_id": "ce_subject", "organization_id": "ce_organization"}


def asyncapi_document(
    declared: Iterable[Declared], title: str, address: StreamAddress | None = None
) -> dict[str, Any]:
    """Describe the messages of a topic, in binary mode.

    Args:
        declared: the event types that a catalogue declares.
        title: of the document.
        address: of the topic; None leaves brokers and topic open.
    """
    events = list(declared)
    schemas: dict[str, Any] = {}
    messages = {each.name: _message(each, schemas) for each in events}
    messages[PROCESS_TYPE] = _process_message(schemas)
    version = hashlib.blake2b("".join(each.schema_uri for each in events).encode(), digest_size=6)
    document: dict[str, Any] = {
        "asyncapi": "3.0.0",
        "info": {
            "title": title,
            "version": version.hexdigest(),
            "description": "CloudEvents 1.0.2 in Kafka, in binary mode.",
        },
        "defaultContentType": JSON.decode(),
        "channels": {
            "events": {
                "address": None if address is None else address.topic,
                "messages": {name: _reference("messages", name) for name in messages},
            }
        },
        "operations": {
            "sendEvents": {"action": "send", "channel": {"$ref": "#/channels/events"}},
        },
        "components": {"messages": messages, "schemas": schemas},
    }
    if address is not None:
        document["servers"] = {
            f"broker{number}": {"host": host, "protocol": "kafka"}
            for number, host in enumerate(address.servers.split(","), 1)
        }
    return document


def _message(declared: Declared, schemas: dict[str, Any]) -> dict[str, Any]:
    name = declared.name
    payload = declared.payload.model_json_schema(
        ref_template=_reference("schemas", f"{name}.{{model}}")["$ref"]
    )
    for model, schema in payload.pop("$defs", {}).items():
        schemas[f"{name}.{model}"] = schema
    # sidelight adds attributes, such as the type of an error.
    payload.pop("additionalProperties", None)
    required = {*payload.get("required", ())}
    for id_ in _IDS:  # they are no attributes of the payload
        payload.get("properties", {}).pop(id_, None)
    payload["required"] = sorted(required - {*_IDS})
    schemas[name] = payload
    always = {
        **_COMMON,
        "ce_type": {"const": name},
        "ce_dataschema": {"const": declared.schema_uri},
        **_OF_EVENTS,
    }
    needed = [*always, *(header for id_, header in _IDS.items() if id_ in required)]
    return {
        "name": name,
        "title": name,
        "summary": declared.description,
        "headers": _object({**always, **_OF_THE_PROCESS, **_OPTIONAL}, needed),
        "payload": _reference("schemas", name),
        "bindings": {"kafka": {"key": _TEXT, "bindingVersion": _BINDING}},
    }


def _process_message(schemas: dict[str, Any]) -> dict[str, Any]:
    template = _reference("schemas", f"{PROCESS_TYPE}.{{name}}")["$ref"]
    (payload,), inner = msgspec.json.schema_components([ProcessNote], ref_template=template)
    schemas |= {f"{PROCESS_TYPE}.{model}": schema for model, schema in inner.items()}
    always = {**_COMMON, "ce_type": {"const": PROCESS_TYPE}}
    return {
        "name": PROCESS_TYPE,
        "title": PROCESS_TYPE,
        "summary": "What a relay tells of a process besides events; readers of events skip it.",
        "headers": _object({**always, **_OF_THE_PROCESS}, always),
        "payload": payload,
        "bindings": {"kafka": {"key": _TEXT, "bindingVersion": _BINDING}},
    }


def _object(properties: Mapping[str, Any], required: Iterable[str]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": sorted(required)}


def _reference(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}
