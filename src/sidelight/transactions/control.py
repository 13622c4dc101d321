"""The transaction control statements of an SQL text: COMMIT, ROLLBACK, SAVEPOINT and their kin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

BEGIN: Final = "BEGIN"
COMMIT: Final = "COMMIT"
ROLLBACK: Final = "ROLLBACK"
SAVEPOINT: Final = "SAVEPOINT"
RELEASE: Final = "RELEASE"
ROLLBACK_TO: Final = "ROLLBACK TO"
PREPARE: Final = "PREPARE TRANSACTION"
COMMIT_PREPARED: Final = "COMMIT PREPARED"
ROLLBACK_PREPARED: Final = "ROLLBACK PREPARED"

ENDS: Final = frozenset({COMMIT, ROLLBACK, PREPARE})
"""The statements that end the transaction of the connection."""

TAGS: Final = frozenset(
    {COMMIT, ROLLBACK, SAVEPOINT, RELEASE, PREPARE, COMMIT_PREPARED, ROLLBACK_PREPARED}
)
"""The command tags by which PostgreSQL answers transaction control statements."""

_TOKEN: Final = re.compile(
    r"""(?P<skipped> \s+ | --[^\n]* )
      | (?P<comment> /\* )
      | (?P<text> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
                | \$(?P<quote>\w*)\$ .*? \$(?P=quote)\$ )
      | (?P<word> \w+ )
      | (?P<end> ; )
      | . """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")
_NAME: Final = r"""("(?:[^"]|"")*"|[eE]?'.*'|\w+)"""
#: Of a statement whose tokens are separated by single spaces; the first that matches counts.
_FORMS: Final = tuple(
    (re.compile(rf"{form}(?!\w)", re.IGNORECASE | re.DOTALL), verb)
    for form, verb in (
        (f"PREPARE TRANSACTION {_NAME}", PREPARE),
        (f"COMMIT PREPARED {_NAME}", COMMIT_PREPARED),
        (f"ROLLBACK PREPARED {_NAME}", ROLLBACK_PREPARED),
        (f"SAVEPOINT {_NAME}", SAVEPOINT),
        (f"RELEASE (?:SAVEPOINT )?{_NAME}", RELEASE),
        (f"ROLLBACK (?:(?:WORK|TRANSACTION) )?TO (?:SAVEPOINT )?{_NAME}", ROLLBACK_TO),
        (r"(?:COMMIT|END)(?: (?:WORK|TRANSACTION))?(?: AND (CHAIN))?", COMMIT),
        (r"(?:ROLLBACK|ABORT)(?: (?:WORK|TRANSACTION))?(?: AND (CHAIN))?", ROLLBACK),
        ("(?:BEGIN|START TRANSACTION)", BEGIN),
    )
)
_LONGEST: Final = 5  # tokens of the longest form: ROLLBACK WORK TO SAVEPOINT name


_MAY_CONTROL: Final = re.compile(
    r"\b(?:BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE)\b", re.IGNORECASE
)
#: Beginnings of single statements that control no transaction.
_PLAIN: Final = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ")


def may_control(text: str) -> bool:
    """Return whether a text may contain a transaction control statement."""
    if text.startswith(_PLAIN) and ";" not in text:  # a hundredth of the search
        return False
    return _MAY_CONTROL.search(text) is not None


class Statement(NamedTuple):
    """A statement of a text.

    Attributes:
        verb: one of the constants of this module; empty for every other statement.
        name: of the savepoint or of the prepared transaction; "chain" where a COMMIT or a ROLLBACK
            begins the next transaction.
    """

    verb: str
    name: str = ""

    @property
    def begins(self) -> bool:
        """Whether a transaction is open after the statement."""
        return self.verb == BEGIN or self.name == "chain"


def statements(text: str) -> Iterator[Statement]:
    """Yield the statements of a text, empty ones excepted."""
    tokens: list[str] = []
    position, size = 0, len(text)
    while position < size:
        token = _TOKEN.match(text, position)
        assert token is not None  # noqa: S101  # the last alternative matches anything
        position = token.end()
        kind = token.lastgroup
        if kind == "comment":
            position = _end_of_comment(text, position)
        elif kind == "end":
            if tokens:
                yield _statement(tokens)
            tokens = []
        elif kind != "skipped" and len(tokens) < _LONGEST:
            tokens.append(token[0])
    if tokens:
        yield _statement(tokens)


def _end_of_comment(text: str, position: int) -> int:
    """Return where a comment ends; in PostgreSQL comments are nested."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(text, position):
        depth += 1 if edge[0] == "/*" else -1
        if not depth:
            return edge.end()
    return len(text)


def _statement(tokens: list[str]) -> Statement:
    text = " ".join(tokens)
    for form, verb in _FORMS:
        if (found := form.match(text)) is not None:
            return Statement(verb, _identifier(found[1]) if form.groups and found[1] else "")
    return Statement("")


def _identifier(word: str) -> str:
    """Return a name as the server compares it."""
    if word[-1] in {'"', "'"}:
        return word[1:-1].replace(word[-1] * 2, word[-1])
    return word.lower()
