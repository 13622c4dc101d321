"""Write drafts from templates: a mail for a claim that asks for something, else a CRM note.

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

#: Predicates that ask for something. The draft is then a mail.
_REQUEST = re.compile(
    r"(?:\w+ly |still |also |now )*"
    r"(?:wants?|wanted|needs?|needed|asks?|asked|expects?|expected|requests?|requested|requires?"
    r"|demands?|demanded|would (?:like|love|prefer)|(?:is|are|was) (?:waiting|asking|expecting))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class WrittenDraft:
    """The text of a draft, before it is stored."""

    claim_id: str
    kind: DraftKind
    recipient: str
    subject: str
    body: str


def write(claim: Claim, match: Match) -> WrittenDraft:
    """Write the draft of a claim, addressed to its best candidate."""
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
        autoescape=select_autoescape(),  # depends on the suffix: plain text is not escaped
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
