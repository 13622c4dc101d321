"""Where records go. A sink takes decoded records in order and raises when it cannot.

``SinkUnavailableError`` means "later": the relay keeps the records and tries again.
``SinkRefusedError`` means "never": the relay finds the record that is to blame and sets it aside,
unless the sink is the store, and takes none of the others either.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidelight.settings import Settings
    from sidelight.sinks.otlp import OtlpSink


def otlp_sinks(settings: Settings, count: Callable[[str, str], None]) -> list[OtlpSink]:
    """The sinks of the signals that are on; ``count`` is told of what a back end rejects.

    The SDK is slow to import, and starts threads while it is. In a process that is ending already
    (its only emission was its last act) none can be started: then it has to do without looking for
    resources, of which none are needed here.
    """
    try:
        from sidelight.sinks.otlp import OtlpSettings  # noqa: PLC0415
    except RuntimeError:
        if threading.main_thread().is_alive():
            raise
        from opentelemetry.sdk import resources  # noqa: PLC0415

        resources.get_aggregated_resources = lambda *_args, **_kwargs: resources.Resource({})
        from sidelight.sinks.otlp import OtlpSettings  # noqa: PLC0415
    wanted = OtlpSettings(
        settings.otlp_traces,
        settings.otlp_logs,
        settings.otlp_endpoint,
        settings.environment,
    )
    return wanted.sinks(count)
