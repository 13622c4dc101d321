"""The relay's threads: the system's own, which a fork ends and begins again.

Where gevent has put greenlets in the place of threads, these stay threads: a greenlet that sits in
SQLite would hold up all the others. And they are ended, not only paused, while the process forks:
a child that is forked beside a thread inside malloc, SQLite or an import may hang for ever.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final


def native(module: str, name: str) -> Any:
    """What a module of the standard library had by this name before gevent patched it."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(importlib.import_module(module), name)


# Taken now: the patches may also come after this import.
allocate_lock: Final[Callable[[], Any]] = native("_thread", "allocate_lock")
start_new_thread: Final[Callable[..., int]] = native("_thread", "start_new_thread")
sleep: Final[Callable[[float], None]] = native("time", "sleep")
_POLL: Final = 0.0002  # seconds


class Loop:
    """A daemon thread that runs a function until it is told to halt, and may be begun again.

    Not a `threading.Thread`: to start one is to wait for it, which beside busy threads takes long.
    """

    def __init__(self, name: str, run: Callable[[], object]) -> None:
        """Nothing runs yet.

        Args:
            name: of the thread; the system shows its first 15 letters.
            run: returns soon after `halting` has become true.
        """
        self.name = name
        self._run = run
        self._halts: deque[bool] = deque()
        self._ended = allocate_lock()  # held while there is a thread
        self._native_id = 0

    @property
    def halting(self) -> bool:
        """Whether the thread was told to end."""
        return bool(self._halts)

    @property
    def is_running(self) -> bool:
        """Whether there is a thread."""
        return bool(self._ended.locked())

    def begin(self) -> None:
        """Let the function run, in the thread that there is or else in a new one.

        Raises:
            RuntimeError: the system or the interpreter, which is about to end, gives none.
        """
        with contextlib.suppress(IndexError):
            self._halts.pop()  # by us, not by the thread: it has not noticed, and goes on
            if self.is_running:
                return
        self._ended = ended = allocate_lock()
        ended.acquire()
        try:
            start_new_thread(self._live, (ended,))
        except RuntimeError:
            ended.release()
            raise

    def halt(self) -> None:
        """Tell the thread to end."""
        if not self._halts:
            self._halts.append(True)

    def join(self, until: float) -> bool:
        """Wait for its end, no longer than to this moment of `time.monotonic`; whether it came."""
        if not self._ended.acquire(timeout=max(0.0, until - time.monotonic())):
            return False
        self._ended.release()
        # Gone from the system too: Python 3.12 and later warn where it counts several at a fork.
        task = Path(f"/proc/self/task/{self._native_id}")
        while self._native_id and task.exists() and time.monotonic() < until:
            sleep(_POLL)
        return True

    def _live(self, ended: Any) -> None:
        try:
            self._native_id = threading.get_native_id()
            threading.current_thread().name = self.name
            with contextlib.suppress(OSError):
                Path(f"/proc/self/task/{self._native_id}/comm").write_text(self.name[:15])
            while True:
                self._run()
                with contextlib.suppress(IndexError):
                    self._halts.pop()
                    return
        finally:
            ended.release()
