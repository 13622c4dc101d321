"""What the proofs of commit on every driver share: modes, their oracle, and Django on psycopg2."""

import collections
from collections.abc import Mapping

from sidelight import arg
from sidelight.emission import EMITTER

#: The modes of a point that is given a connection or a session as ``target``.
MODES = {
    "transaction": {"transaction": arg.target},
    "after_commit": {"after_commit": arg.target},
    "strict": {"transaction": arg.target, "strict": True},
}

#: First lines of a program in which Django is on psycopg2, although it prefers psycopg.
DJANGO_ON_PSYCOPG2 = """
import sys
sys.modules["psycopg"] = None
import django.db.backends.postgresql.base as chosen
del sys.modules["psycopg"]
assert chosen.Database.__name__ == "psycopg2"
"""


def lost() -> int:
    """How many events were lost; what was not joined is there."""
    return sum(number for reason, number in EMITTER.losses.items() if "not joined" not in reason)


def told(
    names: set[str], stored: set[str], losses: Mapping[str, int]
) -> tuple[list[str], list[str]]:
    """The cases that are wrong: an event too many, or one too few that was not counted.

    Args:
        names: of the orders that are committed; each begins with its case and a bar.
        stored: names of the events that are stored.
        losses: number of events that each case has counted as lost.
    """
    missing = collections.Counter(name.partition("|")[0] for name in names - stored)
    phantoms = sorted(stored - names)
    return phantoms, sorted(case for case in missing if missing[case] > losses[case])
