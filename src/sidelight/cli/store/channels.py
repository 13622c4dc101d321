"""The channels that get overdue artifacts: a command, a webhook, stdout. Each retries by itself."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urlsplit

from sidelight.cli.output import json_line
from sidelight.exceptions import ConfigurationError
from sidelight.record import visible
from sidelight.settings import without_password
from sidelight.store import Overdue

_FIRST_PAUSE: Final = 1.0  # s; doubles with each failed attempt to tell
_LONGEST_PAUSE: Final = 60.0
_ANSWER_WITHIN: Final = 30.0  # s that a command or a webhook may take


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


class Backoff:
    """Growing pauses between attempts: from 1 s, doubled at each failure, up to a minute."""

    def __init__(self) -> None:
        self._pause = _FIRST_PAUSE
        self._due = 0.0

    def fail(self) -> float:
        """Note a failed attempt; return the pause before the next one (s)."""
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        self._due = time.monotonic() + pause
        return pause

    def succeed(self) -> None:
        """Note an attempt that succeeded."""
        self._pause, self._due = _FIRST_PAUSE, 0.0

    @property
    def rest(self) -> float:
        """How long to wait for the next attempt (s); 0 where it is due."""
        return max(0.0, self._due - time.monotonic())


class Channel:
    """A way to tell of an overdue.

    Args:
        name: as a state file names it.
        send: hands on a line of JSON; returns the problem in words, or "".
    """

    def __init__(self, name: str, send: Callable[[str], str]) -> None:
        self.name = name
        self.backoff = Backoff()
        self._send = send

    def tell(self, each: Overdue) -> str:
        """Tell of an overdue; return the problem with the pause before the next attempt, or ""."""
        problem = self._send(json_line(each))
        if not problem:
            self.backoff.succeed()
            return ""
        text = f"the {self.name} failed for the overdue {visible(each.artifact_id)}: {problem}"
        return f"{text}; trying again in {self.backoff.fail():g} s"


def channels_of(command: str | None, webhook: str | None) -> list[Channel]:
    """Return the channels, stdout last: a line there says that all others were told."""
    return [*_channels_of(command, webhook), Channel("stdout", _print)]


def _channels_of(command: str | None, webhook: str | None) -> Iterator[Channel]:
    if command is not None:
        yield Channel("command", lambda line: _run(command, line))
    if webhook is not None:
        yield Channel("webhook", lambda line: _post(webhook, line))


def _print(line: str) -> str:
    sys.stdout.write(line)
    sys.stdout.flush()
    return ""


def _run(command: str, line: str) -> str:
    """Run a command with a line on its stdin; return the problem, or ""."""
    try:
        done = subprocess.run(  # noqa: S602  # the user's own command
            command, shell=True, input=line, text=True, timeout=_ANSWER_WITHIN, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {_ANSWER_WITHIN:g} s"
    except OSError as error:
        return error.strerror or "it cannot be run"
    if done.returncode < 0:
        return f"it was ended by {signal.Signals(-done.returncode).name}"
    return f"exit code {done.returncode}" if done.returncode else ""


def _post(url: str, line: str) -> str:
    """Post a line to a webhook; return the problem, or ""."""
    import requests  # noqa: PLC0415  # slow to import, and each `--help` would wait for it

    try:
        answer = requests.post(
            url,
            data=line.encode(),
            headers={"content-type": "application/json"},
            timeout=_ANSWER_WITHIN,
            allow_redirects=False,
        )
    except requests.Timeout:
        return f"{_shown(url)} did not answer within {_ANSWER_WITHIN:g} s"
    except requests.exceptions.SSLError:
        return f"{_shown(url)} has no certificate that is trusted here"
    except requests.RequestException as error:  # its words may hold secrets of the URL
        return f"{_shown(url)} was not reached{_system_error(error)}"
    if answer.status_code // 100 != 2:  # behind a redirect the POST has not arrived
        return f"{_shown(url)} answered {answer.status_code}"
    return ""


def _shown(url: str) -> str:
    """Return a URL without its credentials; its path is often one, as in Slack's webhooks."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…"


def _system_error(error: BaseException | None) -> str:
    """Return the operating system's words for the cause of an error, or ""."""
    while error is not None:
        if isinstance(error, OSError) and error.errno and error.strerror:
            return f": {error.strerror}"
        error = error.__cause__ or error.__context__
    return ""
