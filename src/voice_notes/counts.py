"""Counts that events carry as attributes.

A parameter has the name of a parameter of the decorated function, or ``result``. The decorator
passes arguments by these names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voice_notes.models import DraftKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voice_notes.models import Claim, Draft


def claims(result: Sequence[Claim]) -> int:
    """Count the claims of a note."""
    return len(result)


def people(result: Sequence[Claim]) -> int:
    """Count the different people that the stored claims are about."""
    return len({claim.subject for claim in result})


def names(claims: Sequence[Claim]) -> int:
    """Count the different names to look up."""
    return len({claim.subject for claim in claims})


def notes(result: Sequence[Draft]) -> int:
    """Count the drafts that are notes."""
    return sum(draft.kind is DraftKind.CRM_NOTE for draft in result)


def mails(result: Sequence[Draft]) -> int:
    """Count the drafts that are mails."""
    return sum(draft.kind is DraftKind.FOLLOW_UP_MAIL for draft in result)
