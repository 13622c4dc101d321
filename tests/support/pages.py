"""Serve the pages of a store in a separate process."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.support.commands import start, url_of, wait_for
from tests.support.ports import free_ports

HOSTILE = "<script>alert('x')</script>"

ORDERS = f"""
HOSTILE = {HOSTILE!r}
for n in range(20):
    receive(f"order-{{n}}", "north" if n % 2 else "south", size=n)
    if n < 15:
        pack(f"order-{{n}}", 0.002)
with __import__("contextlib").suppress(ValueError):
    pack("order-15", -1)
names = dict(artifact_id=HOSTILE, organization_id=HOSTILE)
sidelight.emit("order_noted", **names, attributes={{HOSTILE: HOSTILE}})
assert sidelight.flush(60)
"""
"""20 orders are received, 15 packed, one in vain; one event is hostile in every field."""


EXPECT = """
[[expect]]
after = "order_received"
one_of = ["order_packed", "packing_failed"]
within = "1ms"

[[expect]]
after = "packing_started"
one_of = "order_packed"
within = "1h"
"""
"""Nothing was packed within a millisecond: pack waits for two."""


@dataclass(frozen=True)
class Served:
    """A server of pages."""

    port: int
    client: httpx.Client

    @property
    def address(self) -> str:
        """The address of the first page."""
        return f"http://127.0.0.1:{self.port}"

    def text(self, path: str, status: int = 200) -> str:
        """The HTML of a page."""
        answer = self.client.get(path)
        assert answer.status_code == status, answer.text
        return answer.text


Serve = Callable[..., contextlib.AbstractContextManager[Served]]


@contextlib.contextmanager
def serve(store: Path | str, *options: object, **environment: str) -> Iterator[Served]:
    """Run `sidelight ui`, and end it by Ctrl-C."""
    (port,) = free_ports(1)
    command = ("ui", "--store", url_of(store), "--port", port, *options)
    process = start(*command, **environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

            def answers() -> bool:
                assert process.poll() is None, process.communicate()
                with contextlib.suppress(httpx.TransportError):
                    client.get("/static/icon.svg")
                    return True
                return False

            wait_for(answers, 60)
            yield Served(port, client)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
