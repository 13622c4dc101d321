"""Which SQL texts only read, so that a function whose other work is undone has done nothing."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

# A function of the database may write, so only those that are known count as reading.
_KNOWN: Final = re.compile(
    r""" # words before a parenthesis
    all | and | any | as | between | by | case | distinct | else | except | exists | filter | from
    | having | in | intersect | is | join | lateral | like | limit | not | offset | on | or | over
    | select | then | union | values | when | where
    # functions
    | abs | avg | ceil | coalesce | concat | count | date | dense_rank | extract | floor | greatest
    | least | length | lower | max | min | mod | now | nullif | rank | round | row_number | substr
    | substring | sum | trim | upper
    # types
    | cast | char | decimal | numeric | timestamp | varchar
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CALLED: Final = re.compile(r"""([\w$."\]`]*)\s*\(""")
#: Several statements, a comment, or `SELECT … INTO`, which writes a table.
_UNCLEAR: Final = re.compile(r";|--|/\*|\binto\b", re.IGNORECASE)
_LONGEST: Final = 10_000


def only_reads(text: str) -> bool:
    """Return whether a text is surely one statement that writes nothing.

    A view, a cast or an operator that calls a function which writes is taken for one that reads.
    """
    return text.startswith(("SELECT ", "select ")) and len(text) < _LONGEST and _reads(text)


@lru_cache(maxsize=1024)
def _reads(text: str) -> bool:
    if _UNCLEAR.search(text) is not None:
        return False
    return all(not each or _KNOWN.fullmatch(each) for each in _CALLED.findall(text))
