"""The transaction control statements of an SQL text: COMMIT, ROLLBACK, SAVEPOINT and their kin."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from sidelight.transactions import names
from sidelight.transactions.names import NO_NAME, Name

OTHER: Final = ""  # of a statement that controls no transaction
READ: Final = "SELECT"  # … and only reads; no text is looked at for that
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

_OF_SAVEPOINTS: Final = frozenset({SAVEPOINT, RELEASE, ROLLBACK_TO})
_OF_PREPARED: Final = frozenset({PREPARE, COMMIT_PREPARED, ROLLBACK_PREPARED})

TAGS: Final = frozenset(
    {COMMIT, ROLLBACK, SAVEPOINT, RELEASE, PREPARE, COMMIT_PREPARED, ROLLBACK_PREPARED}
)
"""The command tags by which PostgreSQL answers transaction control statements."""


class Dialect(NamedTuple):
    """What differs between databases in the text of transaction control statements.

    Attributes:
        token: matches one token.
        nests_comments: whether a comment may contain comments.
        name: returns the name of a savepoint, of its token.
    """

    token: re.Pattern[str]
    nests_comments: bool
    name: Callable[[str], Name]


def _tokens(line_end: str, text: str) -> re.Pattern[str]:
    return re.compile(
        rf"""(?P<skipped> \s+ | --[^{line_end}]* )
          | (?P<comment> /\* )
          | (?P<text> {text} )
          | (?P<word> [\w\x80-\U0010ffff][\w$\x80-\U0010ffff]* )
          | (?P<end> ; )
          | . """,
        re.VERBOSE | re.DOTALL | re.ASCII,
    )


_QUOTED: Final = r""" '(?:[^']|'')*' | "(?:[^"]|"")*" """
_IN_POSTGRESQL: Final = rf"""
    [eE]'(?:[^'\\]|\\.|'')*' | (?:[uU]&)?(?:{_QUOTED})
    | \$(?P<quote>(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?)\$ .*? \$(?P=quote)\$ """
_BACKTICKS: Final = " `(?:[^`]|``)*` "

SQLITE: Final = Dialect(
    _tokens(r"\n", rf"{_QUOTED} | {_BACKTICKS} | \[[^\]]*\]"),
    nests_comments=False,
    name=names.in_sqlite,
)
UNKNOWN: Final = Dialect(
    _tokens(r"\n", f"{_IN_POSTGRESQL} | {_BACKTICKS}"), nests_comments=True, name=names.in_unknown
)
_POSTGRESQL: Final = Dialect(
    _tokens(r"\n\r", _IN_POSTGRESQL), nests_comments=True, name=names.in_postgresql
)


def in_postgresql(encoding: str | None) -> Dialect:
    """Return the dialect of a PostgreSQL server.

    Args:
        encoding: of the database; None if it is unknown. In one other than UTF-8 the database folds
            letters as its locale says.
    """
    return _POSTGRESQL if encoding == "UTF8" else UNKNOWN


_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")
#: Of a statement whose tokens are separated by single spaces; the first that matches counts.
_FORMS: Final = tuple(
    (re.compile(rf"{form}(?= |\Z)", re.IGNORECASE | re.DOTALL), verb)
    for form, verb in (
        ("PREPARE TRANSACTION (.+)", PREPARE),
        ("COMMIT PREPARED (.+)", COMMIT_PREPARED),
        ("ROLLBACK PREPARED (.+)", ROLLBACK_PREPARED),
        ("SAVEPOINT (.+)", SAVEPOINT),
        ("RELEASE (?:SAVEPOINT )?(.+)", RELEASE),
        ("ROLLBACK (?:(?:WORK|TRANSACTION) )?TO (?:SAVEPOINT )?(.+)", ROLLBACK_TO),
        ("(?:COMMIT|END)(?: (?:WORK|TRANSACTION))?(?: AND (CHAIN))?", COMMIT),
        ("(?:ROLLBACK|ABORT)(?: (?:WORK|TRANSACTION))?(?: AND (CHAIN))?", ROLLBACK),
        ("(BEGIN|START TRANSACTION)", BEGIN),
    )
)
# Tokens of the longest form: ROLLBACK WORK TO SAVEPOINT U&"name" UESCAPE '!'
_LONGEST: Final = 7


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
        verb: one of the constants of this module.
        name: of the savepoint or of the prepared transaction.
        begins: whether a transaction is open after the statement.
    """

    verb: str
    name: Name = NO_NAME
    begins: bool = False


def statements(text: str, dialect: Dialect) -> Iterator[Statement]:
    """Yield the statements of a text, empty ones excepted."""
    tokens: list[str] = []
    position, size = 0, len(text)
    while position < size:
        token = dialect.token.match(text, position)
        assert token is not None  # noqa: S101  # the last alternative matches anything
        position = token.end()
        kind = token.lastgroup
        if kind == "comment":
            position = _end_of_comment(text, position, dialect)
        elif kind == "end":
            if tokens:
                yield _statement(tokens, dialect)
            tokens = []
        elif kind != "skipped" and len(tokens) < _LONGEST:
            tokens.append(token[0])
    if tokens:
        yield _statement(tokens, dialect)


def _end_of_comment(text: str, position: int, dialect: Dialect) -> int:
    """Return where a comment ends."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(text, position):
        if edge[0] == "*/":
            depth -= 1
        elif dialect.nests_comments:
            depth += 1
        if not depth:
            return edge.end()
    return len(text)


def _statement(tokens: list[str], dialect: Dialect) -> Statement:
    text = " ".join(tokens)
    for form, verb in _FORMS:
        if (found := form.match(text)) is not None:
            if verb in _OF_SAVEPOINTS:
                return Statement(verb, dialect.name(found[1]))
            if verb in _OF_PREPARED:
                return Statement(verb, names.literal(found[1]))
            return Statement(verb, begins=found[1] is not None)
    return Statement(OTHER)
