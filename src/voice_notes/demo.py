"""`make demo`: process a voice note, then show its events with sidelight."""

from __future__ import annotations

import shlex
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from voice_notes.presentation import installed

FOLDER: Final = Path("demo")
STORE: Final = f"sqlite:///{FOLDER / 'events.db'}"
console = Console()


def demo(
    note: Annotated[Path | None, typer.Argument(help="A WAV file; else the shipped one.")] = None,
) -> None:
    """Process a note, then show the counts, the costs and the note's timeline."""
    FOLDER.mkdir(exist_ok=True)
    recording = [str(note)] if note else []
    code = run(
        *(installed("python"), "-m", "voice_notes", *recording),
        *("--database", str(FOLDER / "business.db"), "--store", STORE),
    )
    if not (FOLDER / "events.db").exists():
        raise typer.Exit(code)
    sidelight = installed("sidelight")
    run(sidelight, "counts", "--store", STORE)
    run(sidelight, "budget", "--store", STORE)
    console.print(
        "There are more emissions than events: the end of a call counts also where it\n"
        "has no event, because it ends the call's span.\n"
        "These are the first calls of a cold process; a busy machine delays any of them.\n"
        "What the 10 ms promise, and what not: docs/explanation/what-is-promised.md#10-ms",
        style="dim",
    )
    run(sidelight, "timeline", latest_artifact(FOLDER / "events.db"), "--store", STORE)
    console.rule(style="dim")
    console.print("The note, its events and what they cost stand above. Look further with")
    for arguments in (
        ["points", "voice_notes"],
        ["events", "--store", STORE],
        ["--help"],
    ):
        _suggest(sidelight, *arguments)
    console.print("Open the pages of the store in a browser with")
    _suggest(sidelight, "ui", "--store", STORE)
    raise typer.Exit(code)


def _suggest(*command: str) -> None:
    console.print(f"  {shlex.join(command)}", style="bold", soft_wrap=True)


def run(*command: str) -> int:
    """Print a command as a person can type it here, and run it in a separate process."""
    console.rule(style="dim")
    console.print(f"$ {shlex.join(command)}\n", style="bold", soft_wrap=True)
    return subprocess.run(command, check=False).returncode  # noqa: S603  # only programs of this project


def latest_artifact(store: Path) -> str:
    """Return the id of the artifact that was created last."""
    with closing(sqlite3.connect(store)) as connection:
        query = "SELECT artifact_id FROM artifacts ORDER BY first_event_at DESC LIMIT 1"
        artifact: str = connection.execute(query).fetchone()[0]
        return artifact


if __name__ == "__main__":
    typer.run(demo)
