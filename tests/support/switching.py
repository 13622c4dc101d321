"""Threads that give way to each other far more often than they would by themselves."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator


@contextlib.contextmanager
def switching(seconds: float) -> Iterator[None]:
    """Let the interpreter switch between threads so often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def all_at_once(function: Callable[[int], object], arguments: Iterable[int], every: float) -> None:
    """Call a function in a thread for each argument, and wait until all have ended.

    Args:
        function: what each thread calls.
        arguments: one for each thread.
        every: seconds between two switches.
    """
    threads = [threading.Thread(target=function, args=(each,)) for each in arguments]
    with switching(every):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
