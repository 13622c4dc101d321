"""Every error that sidelight raises: one base, and the docstring is the message."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable


class SidelightError(Exception):
    """Sidelight could not do what was asked."""

    def __init__(self, **facts: object) -> None:
        """Fill the class's docstring with ``facts`` and make it the message."""
        self.facts = facts
        super().__init__(inspect.cleandoc(self.__doc__ or "").format(**facts))


class PointError(SidelightError, TypeError):
    """{function}: {problem}; {remedy}"""


class UnknownParameterError(PointError):
    """{function} has no parameter {name}{suggestion}"""

    def __init__(self, function: str, name: str, known: Iterable[str]) -> None:
        """Name the closest of the ``known`` parameters, or list them all."""
        known = list(known)
        close = difflib.get_close_matches(name, known, n=1)
        if close:
            suggestion = f"; did you mean {close[0]}?"
        elif known:
            suggestion = f"; it has {', '.join(known)}"
        else:
            suggestion = "; it takes no arguments"
        super().__init__(function=function, name=name, suggestion=suggestion)


class ExpressionError(SidelightError, TypeError):
    """{expression} cannot be {action} in a field: {remedy}"""


class ConfigurationError(SidelightError, ValueError):
    """{setting}: {problem}; {remedy}"""


class SpoolError(SidelightError, OSError):
    """the spool {directory}: {problem}; {remedy}"""


class StoreError(SidelightError):
    """the events store {url}: {problem}; {remedy}"""


class StoreMissingError(StoreError):
    """there is no events store at {url}; {remedy}"""


class StoreVersionError(StoreError):
    """the events store {url} has schema version {found}, this sidelight knows {known}: \
upgrade sidelight, or name another store"""


class QueryError(SidelightError, ValueError):
    """{argument}: {problem}; {remedy}"""


class SinkUnavailableError(SidelightError):
    """{sink} does not answer: {problem}"""


class SinkRefusedError(SidelightError):
    """{sink} refused a record: {problem}"""


class InstrumentationError(SidelightError, RuntimeError):
    """strict mode: the instrumentation of {point} failed ({reason}): {problem}"""
