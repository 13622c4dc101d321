"""The machine that the figures come from."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sidelight.spool.directory import filesystem

_PACKAGES: Final = (
    *("sidelight", "opentelemetry-sdk", "wrapt", "msgspec", "sqlalchemy"),
    *("logfire", "structlog", "eliot", "ddtrace", "sentry-sdk"),
)


def facts() -> dict[str, Any]:
    """The machine, the interpreter, the packages; nothing that identifies the owner."""
    return {
        "measured at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "switch interval": f"{sys.getswitchinterval() * 1e3:g} ms",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": load(),
        "files on": _filesystem(Path(tempfile.gettempdir())),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def load() -> str:
    """The load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "unknown")


def _filesystem(path: Path) -> str:
    return filesystem(path) or "unknown"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
