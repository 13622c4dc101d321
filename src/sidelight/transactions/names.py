"""How databases compare the names of savepoints."""

from __future__ import annotations

import re
from string import ascii_lowercase, ascii_uppercase
from typing import Final, NamedTuple

_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)
_LONGEST: Final = 63  # bytes of an identifier in PostgreSQL
_QUOTES: Final = {'"': '"', "'": "'", "`": "`", "[": "]"}
_ESCAPED: Final = re.compile(
    r"u&(?P<quote>[\"'])(?P<body>.*)(?P=quote)(?: uescape '(?P<escape>.)')?",
    re.IGNORECASE | re.DOTALL,
)


class Name(NamedTuple):
    """A name in SQL.

    Attributes:
        text: two names are the same if their texts are.
        folded: two names differ if these do; None where nothing tells with which names the
            database takes it as the same.
    """

    text: str
    folded: str | None

    def may_be(self, other: Name) -> bool:
        """Return whether the database may take two names as the same."""
        if None in {self.folded, other.folded}:
            return True
        return self.text == other.text or self.folded == other.folded


NO_NAME: Final = Name("", None)

UNSURE: Final = Name("\0", None)
"""The name of a savepoint that may not exist any more."""


def in_postgresql(token: str) -> Name:
    """Return an identifier of PostgreSQL in UTF-8: ASCII is folded, and the rest of 63 bytes cut.

    Args:
        token: as the text has it.
    """
    text = _text(token)
    try:
        text = text.encode()[:_LONGEST].decode(errors="ignore")
    except UnicodeEncodeError:  # the bytes of another encoding
        return Name(text, None)
    return Name(text, text)


def in_sqlite(token: str) -> Name:
    """Return an identifier of SQLite, which ignores the case of ASCII, also between quotes."""
    text = _text(token).translate(_LOWER)
    return Name(text, text)


def in_unknown(token: str) -> Name:
    """Return an identifier of a database about which nothing is known."""
    text = _text(token)
    is_plain = text.isascii() and len(text) <= _LONGEST
    return Name(text, text.lower() if is_plain else None)


def literal(token: str) -> Name:
    """Return a name that the text has as a string."""
    text = _text(token)
    return Name(text, text)


def _text(token: str) -> str:
    """Return what an identifier or a string stands for."""
    end = _QUOTES.get(token[0])
    if end is not None and token[-1] == end:
        return token[1:-1].replace(end * 2, end)
    if (found := _ESCAPED.fullmatch(token)) is not None:
        return _unescaped(found)
    return token.translate(_LOWER)


def _unescaped(found: re.Match[str]) -> str:
    """Return what an identifier or a string with Unicode escapes stands for."""
    escape = re.escape(found["escape"] or "\\")
    body = re.sub(
        rf"{escape}(?:({escape})|\+([0-9a-f]{{6}})|([0-9a-f]{{4}}))",
        lambda each: each[1] or chr(int(each[2] or each[3], 16)),
        found["body"].replace(found["quote"] * 2, found["quote"]),
        flags=re.IGNORECASE,
    )
    return body.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
