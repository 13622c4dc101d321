"""Writing drafts from templates: a note for the CRM, or a mail where somebody asks for something.

A template begins with the draft's subject, then an empty line, then the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from voice_notes.models import DraftKind

if TYPE_CHECKING:
    from voice_notes.matching import Match
    from voice_notes.models import Claim

#: Predicates that ask for something, and so for an answer.
_REQUEST = re.compile(
    r"(?:\w+ly |still |also |now )*"
    r"(?:wants?|wanted|needs?|needed|asks?|asked|expects?|expected|requests?|requested|requires?"
    r"|demands?|demanded|would (?:like|love|prefer)|(?:is|are|was) (?:waiting|asking|expecting))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class WrittenDraft:
    """A draft as it was written, before anybody has seen it."""

    claim_id: str
    kind: DraftKind
    recipient: str
    subject: str
    body: str


def write(claim: Claim, match: Match) -> WrittenDraft:
    """Write the draft that a claim calls for, to the likeliest of those who may be meant."""
    if match.best is None:
        raise ValueError(f"nobody is known as {match.mention}")
    person = match.best.person
    kind = DraftKind.FOLLOW_UP_MAIL if _REQUEST.match(claim.predicate) else DraftKind.CRM_NOTE
    others = [candidate.person for candidate in match.candidates[1:]]
    text = (
        _templates()
        .get_template(f"{kind}.txt.j2")
        .render(claim=claim, person=person, others=others)
    )
    subject, _, body = text.partition("\n\n")
    return WrittenDraft(
        claim_id=claim.id,
        kind=kind,
        recipient=person.email or person.name,
        subject=subject.strip(),
        body=body.strip(),
    )


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("voice_notes"),
        autoescape=select_autoescape(),  # by the name's ending: plain text stays as it is
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
