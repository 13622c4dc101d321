"""Tell of overdue artifacts: each once, to a command or a webhook, with retries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from opentelemetry.metrics import get_meter

from sidelight.cli.output import complain, json_line
from sidelight.exceptions import ConfigurationError, StoreError
from sidelight.record import Expectation
from sidelight.settings import without_password
from sidelight.store import Judgement, Overdue
from sidelight.version import __version__

_FIRST_PAUSE: Final = 1.0  # s; doubles with each failed attempt to tell
_LONGEST_PAUSE: Final = 60.0
_ANSWER_WITHIN: Final = 30.0  # s that a command or a webhook may take

Key: TypeAlias = tuple[str, str, tuple[str, ...]]


def check_webhook(url: str) -> None:
    """Check that a webhook can be posted to.

    Raises:
        ConfigurationError: it is no URL of HTTP.
    """
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no port, or brackets
        is_url = False
    if not is_url or url != url.strip() or not url.isprintable():
        raise ConfigurationError(
            setting="--webhook",
            problem=f"{without_password(url)!r} is no http or https URL",
            remedy="write https://host/path",
        )


class Alert:
    """Tells of one overdue: to a command, to a webhook, and on stdout."""

    def __init__(self, command: str | None, webhook: str | None) -> None:
        self._command = command
        self._webhook = webhook

    def tell(self, line: str) -> str:
        """Tell; return the problem, or ""."""
        if self._command is not None:
            try:
                subprocess.run(  # noqa: S602  # the user's own command
                    self._command,
                    shell=True,
                    input=line,
                    text=True,
                    timeout=_ANSWER_WITHIN,
                    check=True,
                )
            except (subprocess.SubprocessError, OSError) as error:
                return f"the command failed: {error}"
        if self._webhook is not None:
            import requests  # noqa: PLC0415  # slow to import, and each `--help` would wait for it

            try:
                answer = requests.post(
                    self._webhook,
                    data=line.encode(),
                    headers={"content-type": "application/json"},
                    timeout=_ANSWER_WITHIN,
                    allow_redirects=False,
                )
            except requests.RequestException as error:  # its words may hold secrets of the URL
                return f"the webhook failed: {type(error).__name__}"
            if answer.status_code // 100 != 2:  # behind a redirect the POST has not arrived
                return f"the webhook failed: it answers {answer.status_code}"
        sys.stdout.write(line)
        sys.stdout.flush()
        return ""


class Told:
    """What was told, in a file that a restart reads; without a file in memory.

    Raises:
        ConfigurationError: the file is not one of these, or cannot be read.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._keys: set[Key] = set() if path is None else _read(path)

    def __contains__(self, each: Overdue) -> bool:
        return _key(each) in self._keys

    def add(self, each: Overdue) -> None:
        """Note that an overdue was told."""
        self._keys.add(_key(each))
        self._write()

    def keep(self, found: Iterable[Overdue]) -> None:
        """Forget what is no longer waited for."""
        left = self._keys & {_key(each) for each in found}
        if left != self._keys:
            self._keys = left
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
                json.dump({"told": sorted(self._keys)}, file)
                file.flush()
                os.fsync(fd)
            temporary.replace(self._path)
        except OSError as error:
            raise _bad_state(self._path, error.strerror) from error


def _read(path: Path) -> set[Key]:
    try:
        keys = json.loads(path.read_text("utf-8"))["told"]
        return {(artifact, after, tuple(one_of)) for artifact, after, one_of in keys}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise _bad_state(path, error.strerror) from error
    except (ValueError, KeyError, TypeError) as error:
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


def follow_overdue(look: Callable[[], Judgement], alert: Alert, told: Told, every: float) -> None:
    """Tell each overdue once; retry what could not be told. Ends by an interrupt only."""
    silent: set[str] = set()
    pause = _FIRST_PAUSE
    while True:
        problem = ""
        try:
            found = look()
        except StoreError as error:
            found, problem = None, str(error)
        if found is not None:
            before, silent = silent, {each.process for each in found if each.state == "unknown"}
            if silent != before:  # the seconds in a reason are others at each look
                for reason in found.unknown:
                    complain(f"unknown: {reason}")
            problem = _tell(found, alert, told)
        if problem:
            complain(f"{problem}; trying again in {pause:g} s")
        time.sleep(pause if problem else every)
        pause = min(2 * pause, _LONGEST_PAUSE) if problem else _FIRST_PAUSE


def _tell(found: Judgement, alert: Alert, told: Told) -> str:
    """Tell what was not told yet, up to the first problem; return that, or ""."""
    told.keep(found)
    for each in found:
        if each.state == "overdue" and each not in told:
            if problem := alert.tell(json_line(each)):
                return problem
            told.add(each)
    return ""
