"""How many: what the events say of what a function was given or gave back.

Each parameter is named after the function's own, or ``result``: so the decorators know what to
hand in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voice_notes.models import DraftKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voice_notes.models import Claim, Draft


def claims(result: Sequence[Claim]) -> int:
    """How many claims a note makes."""
    return len(result)


def people(result: Sequence[Claim]) -> int:
    """How many different people the stored claims are about."""
    return len({claim.subject for claim in result})


def names(claims: Sequence[Claim]) -> int:
    """How many different names are to be looked up."""
    return len({claim.subject for claim in claims})


def notes(result: Sequence[Draft]) -> int:
    """How many of the drafts are notes."""
    return sum(draft.kind is DraftKind.CRM_NOTE for draft in result)


def mails(result: Sequence[Draft]) -> int:
    """How many of the drafts are mails."""
    return sum(draft.kind is DraftKind.FOLLOW_UP_MAIL for draft in result)
