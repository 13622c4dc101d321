"""Houses of subjects: each house is set up once, in a separate process.

A house is a generator: given a directory it sets up, yields its subjects by name, and tears down.
It raises `AbsentError` where what it needs is not installed.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, TypeAlias

from benchmarks.setups import AbsentError
from benchmarks.timing import Order, Samples, measure
from benchmarks.work import Subject

Subjects: TypeAlias = dict[str, Subject]
House: TypeAlias = Callable[[Path], Iterator[Subjects]]

_FOREIGN: Final = ("OTEL_", "SIDELIGHT_", "LOGFIRE_", "DD_", "SENTRY_")
_STARTS_WITHIN: Final = 60.0


@dataclass(frozen=True, slots=True)
class Address:
    """A house in some module of this package, by name: a form that can be sent to another process.

    Attributes:
        module: of this package.
        house: the function.
        options: its keyword arguments.
    """

    module: str
    house: str
    options: tuple[tuple[str, Any], ...] = ()

    def open(self, directory: Path) -> contextlib.AbstractContextManager[Subjects]:
        """Set the house up here."""
        house = getattr(importlib.import_module(f"benchmarks.{self.module}"), self.house)
        return contextlib.contextmanager(house)(directory, **dict(self.options))


def _live(address: Address, directory: str, connection: Connection) -> None:
    """The main function of a house's process: carry out orders until the order to end."""
    for name in tuple(os.environ):
        if name.startswith(_FOREIGN):
            del os.environ[name]
    with contextlib.ExitStack() as stack:
        try:
            subjects = stack.enter_context(address.open(Path(directory)))
        except AbsentError as reason:
            connection.send(("absent", str(reason)))
            return
        except Exception as error:
            traceback.print_exc()
            connection.send(("absent", f"it cannot be set up: {type(error).__name__}: {error}"))
            return
        connection.send(("open", sorted(subjects)))
        while (order := connection.recv()) is not None:
            connection.send(measure(subjects[order.subject], order))
    connection.send("closed")


class Tenancy:
    """A house that is open in another process, seen from here.

    Attributes:
        absent: why it could not be opened; empty when it could.
        subjects: the names of what can be measured in it.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.absent = ""
        self.subjects: list[str] = []
        self._directory = tempfile.TemporaryDirectory(prefix="sidelight-bench-")
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_live, args=(address, self._directory.name, theirs), daemon=True
        )
        self._process.start()
        theirs.close()
        state, answer = self._answer(_STARTS_WITHIN)
        if state == "absent":
            self.absent = answer
        else:
            self.subjects = answer

    def measure(self, order: Order) -> Samples:
        """Have an order carried out there."""
        self._connection.send(order)
        samples: Samples = self._answer(order.seconds * 3 + 60)
        return samples

    def close(self) -> None:
        """Tear the house down."""
        if self._process.is_alive():
            with contextlib.suppress(OSError, EOFError):
                self._connection.send(None)
                self._answer(30)
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
        self._connection.close()
        self._directory.cleanup()

    def _answer(self, seconds: float) -> Any:
        if not self._connection.poll(seconds):
            raise TimeoutError(f"{self.address} does not answer")
        try:
            return self._connection.recv()
        except EOFError as error:
            raise RuntimeError(f"{self.address} died; its traceback is above") from error


@contextlib.contextmanager
def opened(addresses: Mapping[str, Address]) -> Iterator[dict[str, Tenancy]]:
    """Open houses, each in a separate process, and close them at the end."""
    tenancies: dict[str, Tenancy] = {}
    try:
        for name, address in addresses.items():
            tenancies[name] = Tenancy(address)
        yield tenancies
    finally:
        for tenancy in tenancies.values():
            tenancy.close()
