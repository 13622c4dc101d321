"""The sinks of a process: the store, the stream, and OTLP, as far as they are on."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from sidelight.exceptions import ConfigurationError, SidelightError
from sidelight.host import log_warning, start_new_thread
from sidelight.runtime.inheritance import without_relay
from sidelight.runtime.measuring import observe_stored
from sidelight.settings import sqlite_path

if TYPE_CHECKING:
    from sidelight.otlp import OtlpSink
    from sidelight.settings import Settings
    from sidelight.spool import Sink

_left: Final[dict[int, Settings]] = {}  # by process: the settings under which it lost its store


def sinks_of(
    settings: Settings, count: Callable[[str, str], None], *, lossless: bool = False
) -> list[Sink]:
    """Make the sinks that the settings name; imports them, which is slow.

    Args:
        settings: of this process.
        count: counts the records that a back end rejects.
        lossless: let the sinks of OTLP raise what they would count: see `OtlpSink`.

    Raises:
        ConfigurationError: the stream's client is not installed, or refuses its properties.
        OSError: the process has too many open files to import a sink now.
    """
    sinks: list[Sink] = []
    if settings.store is not None:
        from sidelight.store import StoreSink  # noqa: PLC0415

        sinks.append(StoreSink(settings.store, count, observe_stored))
    if settings.stream is not None:
        sinks.append(_stream_sink(settings.stream, settings, count))
    if settings.otlp_traces or settings.otlp_logs:
        try:
            sinks.extend(_otlp_sinks(settings, count, lossless=lossless))
        except Exception as error:  # the store works without OTLP
            if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
                raise
            log_warning("sidelight: OTLP export is off, because it cannot start: %r", error)
    return sinks


def leave_lost_store(settings: Settings | None, configure: Callable[..., object]) -> None:
    """Let another relay deliver where this process can no longer open its store.

    The spool is opened anew for that relay, in a thread, because the caller may be one that ends
    then. See `sidelight.store.is_unusable`.
    """
    from sidelight.store import is_unusable  # noqa: PLC0415

    if settings is None or settings.store is None or settings.relay == "external":
        return
    path, process = sqlite_path(settings.store), os.getpid()
    if path is not None and is_unusable(path) and _left.get(process) is not settings:
        _left[process] = settings
        external = without_relay(settings, "other code closed the files of its store")
        with contextlib.suppress(RuntimeError):  # the process is ending
            start_new_thread(partial(_leave, settings, partial(configure, external)))


def _leave(settings: Settings, configure: Callable[..., object]) -> None:
    """Configure, unless another thread has done so meanwhile; after a failure try again later."""
    try:
        configure(instead_of=settings)
    except (SidelightError, OSError) as error:
        _left.pop(os.getpid(), None)
        log_warning("sidelight: the store is not left to another relay yet: %s", error)


def require_stream_client() -> None:
    """Check that the client of a stream is installed.

    Raises:
        ConfigurationError: it is not.
    """
    if importlib.util.find_spec("confluent_kafka") is None:
        raise ConfigurationError(
            setting="stream",
            problem="Kafka needs confluent-kafka",
            remedy="pip install 'sidelight[kafka]'",
        )


def _stream_sink(stream: str, settings: Settings, count: Callable[[str, str], None]) -> Sink:
    require_stream_client()
    from sidelight.stream import StreamSink  # noqa: PLC0415

    # The store counts what is not as declared, where there is one.
    if settings.store is not None:
        return StreamSink(stream, settings.environment)
    return StreamSink(stream, settings.environment, count)


def _otlp_sinks(
    settings: Settings, count: Callable[[str, str], None], *, lossless: bool
) -> list[OtlpSink]:
    """Make the sinks of the signals that are on.

    For gRPC the SDK is imported, and that starts threads that detect resources. A process that is
    ending cannot start a thread. There the detection is replaced, because sidelight does not need
    it.
    """
    from sidelight.otlp import OtlpSettings  # noqa: PLC0415

    wanted = OtlpSettings(
        settings.otlp_traces,
        settings.otlp_logs,
        settings.otlp_endpoint,
        settings.environment,
    )
    try:
        return wanted.sinks(count, lossless=lossless)
    except RuntimeError:
        if threading.main_thread().is_alive():
            raise
        from opentelemetry.sdk import resources  # noqa: PLC0415

        resources.get_aggregated_resources = lambda *_args, **_kwargs: resources.Resource({})
        return wanted.sinks(count, lossless=lossless)
