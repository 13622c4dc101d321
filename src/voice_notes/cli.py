"""The command line: `python -m voice_notes note.wav`."""

import asyncio
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

import sidelight
from voice_notes.audio import Recording
from voice_notes.database import open_database
from voice_notes.directory import SHIPPED, Directory, OrganizationCandidate
from voice_notes.errors import VoiceNoteError
from voice_notes.pipeline import Pipeline
from voice_notes.presentation import Presentation, installed
from voice_notes.review import standing_policy

#: The default note.
RECORDING = Path(__file__).with_name("recordings") / "northwind.wav"

_console = Console()
_errors = Console(stderr=True)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def voice_notes(
    note: Annotated[Path, typer.Argument(help="A WAV file.")] = RECORDING,
    *,
    organization: Annotated[
        str | None,
        typer.Option(help="The organization of the note; without it, the directory's first."),
    ] = None,
    no_organization: Annotated[
        bool, typer.Option("--no-organization", help="The note belongs to no organization.")
    ] = False,
    directory: Annotated[Path, typer.Option(help="The people, as JSON.")] = SHIPPED,
    database: Annotated[Path, typer.Option(help="Business data, a SQLite file.")] = Path(
        "voice_notes.db"
    ),
    store: Annotated[
        str | None,
        typer.Option(help="sidelight's events store; without it, SIDELIGHT_STORE or its default."),
    ] = None,
    review: Annotated[
        bool, typer.Option("--review", help="Ask for each verdict instead of following the policy.")
    ] = False,
) -> None:
    """Process a voice note: transcribe it, find claims and people, write drafts, decide."""
    with _failures_in_words(database):
        recording, people = Recording.read(note), Directory.read(directory)
        if no_organization:
            organizations = []
        elif organization:
            organizations = [OrganizationCandidate(organization)]
        else:
            organizations = people.candidates()
    named = f" --store {shlex.quote(store)}" if store else ""
    read_on = f"{shlex.quote(installed('sidelight'))} timeline {{artifact}}{named}"
    with (
        _failures_in_words(database),
        open_database(database) as sessions,
        _emitting(store, database),
        Presentation(_console, read_on=read_on) as presentation,
    ):
        presentation.arrived(recording)
        reviewer = presentation.ask if review else standing_policy
        pipeline = Pipeline(sessions, people.people_of(organizations), reviewer, presentation)
        asyncio.run(pipeline.process(recording, organizations))


@contextmanager
def _failures_in_words(database: Path) -> Iterator[None]:
    try:
        yield
    except (VoiceNoteError, sidelight.SidelightError) as error:
        _complain(str(error))
        raise typer.Exit(1) from error
    except SQLAlchemyError as error:
        _complain(f"{database}: {getattr(error, 'orig', None) or error}")
        raise typer.Exit(1) from error


@contextmanager
def _emitting(store: str | None, database: Path) -> Iterator[None]:
    sidelight.configure(store, outboxes=[f"sqlite:///{database}"])
    try:
        yield
    finally:
        if not sidelight.flush():
            _complain("some events are not in the store yet: `sidelight relay --once` brings them")


def _complain(message: str) -> None:
    _errors.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
