"""Where records go. A sink takes decoded records in order and raises when it cannot.

``SinkUnavailableError`` means "later": the relay keeps the records and tries again.
``SinkRefusedError`` means "never": the relay finds the record that is to blame and sets it aside,
unless the sink is the store, and takes none of the others either.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sidelight.otlp import OtlpSink
    from sidelight.settings import Settings
    from sidelight.spool import Sink

_logger: Final = logging.getLogger("sidelight")


def sinks_of(settings: Settings, count: Callable[[str, str], None]) -> list[Sink]:
    """The sinks that the settings ask for. Imported here: they are slow to import.

    ``count`` is told of what a back end rejects.

    Raises:
        OSError: no file can be opened for that now; later it may.
    """
    from sidelight.store import StoreSink  # noqa: PLC0415

    sinks: list[Sink] = [StoreSink(settings.store, count)]
    if settings.otlp_traces or settings.otlp_logs:
        try:
            sinks.extend(_otlp_sinks(settings, count))
        except Exception as error:  # the store goes on without
            if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
                raise
            _logger.warning("sidelight exports nothing for now: %r", error)
    return sinks


def _otlp_sinks(settings: Settings, count: Callable[[str, str], None]) -> list[OtlpSink]:
    """The sinks of the signals that are on.

    The SDK is slow to import, and starts threads while it is. In a process that is ending already
    (its only emission was its last act) none can be started: then it has to do without looking for
    resources, of which none are needed here.
    """
    try:
        from sidelight.otlp import OtlpSettings  # noqa: PLC0415
    except RuntimeError:
        if threading.main_thread().is_alive():
            raise
        from opentelemetry.sdk import resources  # noqa: PLC0415

        resources.get_aggregated_resources = lambda *_args, **_kwargs: resources.Resource({})
        from sidelight.otlp import OtlpSettings  # noqa: PLC0415
    wanted = OtlpSettings(
        settings.otlp_traces,
        settings.otlp_logs,
        settings.otlp_endpoint,
        settings.environment,
    )
    return wanted.sinks(count)
