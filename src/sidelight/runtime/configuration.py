"""The public functions of the process: `configure` and `flush`.

What they need is imported by their calls, so that importing their names takes little time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from sidelight.exceptions import told_at_the_caller
from sidelight.host import begin_use


@told_at_the_caller
def configure(
    store: str | None = None,
    *,
    stream: str | None = None,
    otlp: bool | str | None = None,
    spool: str | os.PathLike[str] | None = None,
    hot: str | os.PathLike[str] | None = None,
    outboxes: Sequence[str] | None = None,
    relay: Literal["thread", "external"] = "thread",
    spool_limit: int = 1024 * 1024 * 1024,
    deadline: float = 0.010,
    strict: bool | None = None,
) -> None:
    """Configure where events go. Without this call the first emission reads the environment.

    Child processes of `multiprocessing`, by any start method, have the same configuration unless
    they call this function themselves.

    The call opens the spool and the store, so that the first emission finds them open. It waits
    half a second at the longest for a store that does not answer.

    Args:
        store: ``sqlite:///events.db`` or ``postgresql://host/database``. Default:
            ``SIDELIGHT_STORE``, else none where there is a stream, else a file in the user's state
            directory.
        stream: ``kafka://host:9092,host:9092/topic`` sends events to a topic of Kafka. Default:
            ``SIDELIGHT_STREAM``, else none.
        otlp: True exports to the ``OTEL_EXPORTER_OTLP_*`` endpoints, a URL to that base URL, False
            exports nothing. Default: export if one of the endpoint variables is set.
        spool: the directory of the spool. Default: ``SIDELIGHT_SPOOL``, else beside the SQLite
            store, else in the user's state directory.
        hot: a directory on a tmpfs, such as ``/dev/shm``, where the segment lies that is being
            written, so that no busy disk delays a caller. The relay copies it to the spool within
            50 ms; a crash of the machine, or the end of a container, takes what is younger.
            Default: ``SIDELIGHT_HOT``, else none.
        outboxes: URLs of the databases whose transactions events join (``transaction=``). Default:
            ``SIDELIGHT_OUTBOXES``, separated by spaces or commas.
        relay: "thread" delivers from daemon threads of this process; "external" leaves delivery to
            `sidelight relay`.
        spool_limit: the bytes that the spool may hold while a sink is down.
        deadline: the longest time that an awaited emission may take from its caller (s).
        strict: raise errors of the instrumentation instead of counting them (for tests). Default:
            ``SIDELIGHT_STRICT``.

    Raises:
        ConfigurationError: a setting is not valid; the error names the setting and the remedy.
    """
    begin_use()  # a direct emission imports nothing after this
    from sidelight.runtime.applying import apply  # noqa: PLC0415  # see above
    from sidelight.settings import settle  # noqa: PLC0415

    settings = settle(
        store,
        stream=stream,
        otlp=otlp,
        spool=spool,
        hot=hot,
        outboxes=outboxes,
        relay=relay,
        spool_limit=spool_limit,
        deadline=deadline,
        strict=strict,
    )
    apply(settings)


def flush(timeout: float = 5.0) -> bool:
    """Wait until the store, and each sink that answers, has everything that this process emitted.

    A collector that does not answer is not waited for. Undelivered records stay in the spool.

    Args:
        timeout: the longest time to wait (s).

    Returns:
        Whether everything is delivered; False if the store has refused an event since the last
        flush (see `Receipt.state`). With ``relay="external"`` this process cannot know, and the
        answer is False.
    """
    from sidelight.runtime.forks import RUNTIME  # noqa: PLC0415

    return RUNTIME.flush(timeout)
