"""What the header of a segment says about the process that writes it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sidelight.host import host_name
from sidelight.record import limits_from
from sidelight.settings import Settings, outbox_name


def writer_meta(settings: Settings, instance: str) -> dict[str, Any]:
    """Return the header of this process's segments: what a relay in another process has to know."""
    env = settings.environment
    return {
        "instance": instance,
        "pid": os.getpid(),
        **({"store": settings.named_store} if settings.names_store else {}),
        **({"stream": settings.stream} if settings.stream else {}),
        "spool": os.fsencode(settings.spool).decode(errors="replace"),
        "relay": settings.relay,
        "role": settings.role,
        "limit": settings.spool_limit,
        "sinks": list(settings.sinks),
        **_outboxes(settings),
        "limits": list(limits_from(env)),
        "resource": {
            "service.name": "unknown_service",
            "service.instance.id": instance,
            "host.name": host_name(),
            "process.pid": os.getpid(),
            "process.executable.name": Path(sys.executable).name,
            "process.runtime.version": sys.version.partition(" ")[0],
            **_resource_attributes(env.get("OTEL_RESOURCE_ATTRIBUTES", "")),
            **({"service.name": name} if (name := env.get("OTEL_SERVICE_NAME")) else {}),
        },
    }


def _outboxes(settings: Settings) -> dict[str, list[str]]:
    """Return the outboxes that an external relay has to drain, without passwords."""
    if settings.relay == "thread" or not settings.outboxes:
        return {}
    return {"outboxes": [*map(outbox_name, settings.outboxes)]}


def meta_of_child(parent: Mapping[str, Any], instance: str) -> dict[str, Any]:
    """Return the header of a forked child's segments: its parent's, with the child's own ids.

    The child's first call would copy eighty pages of memory in order to make it anew.

    Args:
        parent: as `writer_meta` made it in the parent.
        instance: the child's.
    """
    pid, resource = os.getpid(), {**parent["resource"]}
    for name, theirs, own in (
        ("service.instance.id", parent["instance"], instance),
        ("process.pid", parent["pid"], pid),
    ):
        if resource[name] == theirs:  # OTEL_RESOURCE_ATTRIBUTES may say otherwise
            resource[name] = own
    return {**parent, "instance": instance, "pid": pid, "resource": resource}


def _resource_attributes(text: str) -> dict[str, str]:
    pairs = (item.partition("=") for item in text.split(",") if "=" in item)
    return {unquote(k.strip()): unquote(v.strip()) for k, _, v in pairs if k.strip()}
