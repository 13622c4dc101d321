"""Show the processing of a note on the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.prompt import Confirm
from rich.table import Table
from rich.text import Text

from voice_notes.errors import VoiceNoteError
from voice_notes.models import DraftStatus, RejectionReason, ResolutionStatus
from voice_notes.pipeline import Listener

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from rich.console import Console

    from voice_notes.audio import Recording
    from voice_notes.matching import Match
    from voice_notes.models import (
        Artifact,
        Claim,
        Draft,
        EntityResolution,
        Resolutions,
        Transcript,
    )

_LOOK = {
    ResolutionStatus.RESOLVED: "green",
    ResolutionStatus.NEEDS_DISAMBIGUATION: "yellow",
    ResolutionStatus.UNRESOLVED: "dim",
    DraftStatus.CONFIRMED: "green",
    DraftStatus.REJECTED: "red",
}


class Presentation(Listener):
    """Shows each step when it ends, and a progress bar during the transcription.

    At the end, also after an error, it prints `read_on`: the command that shows the events.
    """

    def __init__(self, console: Console, *, read_on: str) -> None:
        self._console = console
        self._read_on = read_on
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("Listening for speech", total=None)
        self._claims: dict[str, Claim] = {}
        self._artifact_id = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if self._artifact_id:
            command = self._read_on.replace("{artifact}", self._artifact_id)
            self._console.print(f"See what happened: {command}", soft_wrap=True, highlight=False)

    def arrived(self, recording: Recording) -> None:
        """Show the name and length of the recording."""
        length = "" if recording.seconds is None else f", {recording.seconds:.1f} s"
        self._console.print(Text.assemble("Voice note ", (recording.name, "bold"), length))

    def received(self, artifact: Artifact) -> None:
        """Show the artifact of the note."""
        self._artifact_id = artifact.id
        organization = artifact.organization_id or "no organization"
        self._console.print(Text(f"Artifact {artifact.id}, {organization}", style="dim"))

    def hearing(self, heard: int, passages: int) -> None:
        """Update the progress bar."""
        self._progress.update(
            self._task, description="Writing down", completed=heard, total=passages
        )

    def transcribed(self, transcript: Transcript) -> None:
        """Show the transcript."""
        self._progress.stop()
        self._console.print(Panel(Text(transcript.text), title="Transcript", title_align="left"))

    def claimed(self, claims: Sequence[Claim]) -> None:
        """Show the claims."""
        self._claims = {claim.id: claim for claim in claims}
        if not claims:
            self._console.print("No claims: the note asserts nothing about anybody.")
            return
        table = Table("#", "about", "asserts", title="Claims", title_justify="left")
        for claim in claims:
            table.add_row(str(claim.position), Text(claim.subject), Text(claim.predicate))
        self._console.print(table)

    def resolved(self, resolutions: Resolutions, matches: Mapping[str, Match]) -> None:
        """Show the candidates of each claim."""
        if not resolutions:
            return
        table = Table("#", "heard", "status", "who", title="Resolutions", title_justify="left")
        for resolution in resolutions:
            candidates = matches[resolution.claim_id].candidates
            table.add_row(
                str(self._claims[resolution.claim_id].position),
                Text(resolution.mention),
                Text(resolution.status.replace("_", " "), style=_LOOK[resolution.status]),
                Text(" or ".join(f"{item.person.name} ({item.score:.0f})" for item in candidates)),
            )
        self._console.print(table)

    def drafted(self, drafts: Sequence[Draft]) -> None:
        """Show a line if there are no drafts. `decided` shows each draft."""
        if not drafts:
            self._console.print("No drafts: nobody whom the directory knows is spoken about.")

    def decided(self, draft: Draft) -> None:
        """Show a draft and its verdict."""
        verdict = draft.status.value
        if draft.rejection_reason:
            verdict = f"{verdict}: {draft.rejection_reason.replace('_', ' ')}"
        self._console.print(_panel(draft, verdict, _LOOK[draft.status]))

    def ask(self, draft: Draft, resolution: EntityResolution) -> RejectionReason | None:
        """Ask for the verdict on a draft."""
        self._console.print(_panel(draft, "your verdict?", "yellow"))
        likely = resolution.status is ResolutionStatus.RESOLVED
        try:
            confirmed = Confirm.ask("Confirm this draft?", console=self._console, default=likely)
        except EOFError:
            raise VoiceNoteError("the review ended before every draft had its verdict") from None
        return None if confirmed else RejectionReason.REVIEWER_DECLINED


def _panel(draft: Draft, verdict: str, look: str) -> Panel:
    heading = f"{draft.kind.replace('_', ' ')} · {draft.recipient} · {draft.subject}"
    return Panel(
        Text(f"{heading}\n\n{draft.body}"),
        title=Text(verdict, style=look),
        title_align="left",
        border_style=look,
    )


def installed(program: str) -> str:
    """The path of a program of this environment, as short as it can be typed."""
    beside = Path(sys.executable).with_name(program)
    if shutil.which(program) == str(beside):
        return program
    relative = os.path.relpath(beside)
    return str(beside) if relative.startswith("..") else relative
