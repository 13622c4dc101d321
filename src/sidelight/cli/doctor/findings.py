"""What `sidelight doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

State: TypeAlias = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was looked at: "store", "spool", …
        state: "ok"; "note" is worth knowing; "wrong" makes the doctor end with 1.
        message: what there is, in words.
        remedy: what helps; "" where nothing has to.
    """

    check: str
    state: State
    message: str
    remedy: str = ""
