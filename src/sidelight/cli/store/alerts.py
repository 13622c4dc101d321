"""Tell of overdue artifacts: each once to each channel, with retries."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from opentelemetry.metrics import get_meter

from sidelight.cli.output import complain
from sidelight.cli.store.channels import Backoff, Channel
from sidelight.exceptions import ConfigurationError, StoreError
from sidelight.record import Expectation
from sidelight.store import Judgement, Overdue
from sidelight.version import __version__

_LAST: Final = "stdout"  # the channel that is told when all others were

Key: TypeAlias = tuple[str, str, tuple[str, ...]]


class Told:
    """What was told to which channel, in a file that a restart reads; without a file in memory.

    Raises:
        ConfigurationError: the file is not one of these, or cannot be read.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._channels: dict[Key, frozenset[str]] = {} if path is None else _read(path)

    def has(self, each: Overdue, channel: str) -> bool:
        """Return whether a channel was told, or all were."""
        return bool(self._channels.get(_key(each), frozenset()) & {channel, _LAST})

    def add(self, each: Overdue, channel: str) -> None:
        """Note that a channel was told of an overdue."""
        self._channels[_key(each)] = self._channels.get(_key(each), frozenset()) | {channel}
        self._write()

    def keep(self, found: Iterable[Overdue]) -> None:
        """Forget what is no longer waited for."""
        waiting = {_key(each) for each in found}
        if gone := self._channels.keys() - waiting:
            for key in gone:
                del self._channels[key]
            self._write()

    def _write(self) -> None:
        """Replace the file as a whole, so that a kill leaves the one before.

        Raises:
            ConfigurationError: the file cannot be written.
        """
        if self._path is None:
            return
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(fd, "w", encoding="utf-8") as file:  # noqa: PTH123  # with its mode
                json.dump(self._content(), file)
                file.flush()
                os.fsync(fd)
            temporary.replace(self._path)
        except OSError as error:
            raise _bad_state(self._path, error.strerror) from error

    def _content(self) -> dict[str, object]:
        """Return what was told to all channels, and what to some."""
        told = sorted(key for key, names in self._channels.items() if _LAST in names)
        some = sorted(
            (key, sorted(names)) for key, names in self._channels.items() if _LAST not in names
        )
        return {"told": told, "partly": some} if some else {"told": told}


def _read(path: Path) -> dict[Key, frozenset[str]]:
    try:
        content = json.loads(path.read_text("utf-8"))
        told = [*((key, [_LAST]) for key in content["told"]), *content.get("partly", ())]
        return {
            (artifact, after, tuple(one_of)): frozenset(names)
            for (artifact, after, one_of), names in told
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _bad_state(path, error.strerror) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _bad_state(path, "it holds something else") from error


def _bad_state(path: Path, problem: str | None) -> ConfigurationError:
    return ConfigurationError(
        setting="--state", problem=f"{path}: {problem}", remedy="name another file, or remove it"
    )


def _key(each: Overdue) -> Key:
    return each.artifact_id, each.after, each.one_of


def measured_by(
    expectations: Iterable[Expectation], look: Callable[[], Judgement]
) -> Callable[[], Judgement]:
    """Make a gauge of what each look finds: ``sidelight.overdue``, by expectation and state."""
    gauge = get_meter("sidelight", __version__).create_gauge(
        "sidelight.overdue", "{artifact}", "Artifacts that wait in vain for an expected event."
    )
    waits = {(each.after, tuple(each.one_of)) for each in expectations}

    def measure() -> Judgement:
        found = look()
        counts = Counter((each.after, each.one_of, each.state) for each in found)
        for after, one_of in waits:
            for state in ("overdue", "unknown"):
                named = {
                    "sidelight.expect.after": after,
                    "sidelight.expect.one_of": " or ".join(one_of),
                    "sidelight.expect.state": state,
                }
                gauge.set(counts[after, one_of, state], named)
        return found

    return measure


def follow_overdue(
    look: Callable[[], Judgement], channels: Sequence[Channel], told: Told, every: float
) -> None:
    """Tell each overdue once to each channel; retry a failure. Ends by an interrupt only."""
    silent: set[str] = set()
    store = Backoff()
    while True:
        try:
            found = look()
        except StoreError as error:
            complain(f"{error}; trying again in {store.fail():g} s")
            time.sleep(store.rest)
            continue
        store.succeed()
        before, silent = silent, {each.process for each in found if each.state == "unknown"}
        if silent != before:  # the seconds in a reason are others at each look
            for reason in found.unknown:
                complain(f"unknown: {reason}")
        _tell(found, channels, told)
        time.sleep(min([every, *(each.backoff.rest for each in channels if each.backoff.rest)]))


def _tell(found: Judgement, channels: Sequence[Channel], told: Told) -> None:
    """Tell each channel what it was not told yet, up to its first problem."""
    told.keep(found)
    for each in found:
        if each.state != "overdue":
            continue
        for channel in channels:
            if told.has(each, channel.name):
                continue
            if channel.name == _LAST and not all(told.has(each, c.name) for c in channels[:-1]):
                continue
            if channel.backoff.rest:
                continue
            if problem := channel.tell(each):
                complain(problem)
            else:
                told.add(each, channel.name)
