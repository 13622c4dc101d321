"""`make demo`: process a voice note, then show its events with sidelight."""

from __future__ import annotations

import os
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

FOLDER = Path("demo")
console = Console()


def demo(
    note: Annotated[Path | None, typer.Argument(help="A WAV file; else the shipped one.")] = None,
) -> None:
    """Process a note, then show its timeline, the counts, the map of points and the costs."""
    FOLDER.mkdir(exist_ok=True)
    store = f"sqlite:///{FOLDER / 'events.db'}"
    arguments = [str(note)] if note else []
    code = run("voice_notes", *arguments, "--database", f"{FOLDER / 'business.db'}", store=store)
    if not (FOLDER / "events.db").exists():
        raise typer.Exit(code)
    run("sidelight", "timeline", latest_artifact(FOLDER / "events.db"), store=store)
    run("sidelight", "counts", store=store)
    run("sidelight", "points", "voice_notes", store=store)
    run("sidelight", "budget", store=store)
    console.print(f"\nThe events are in {store}; ask further with", end=" ")
    ask = f"SIDELIGHT_STORE={store} .venv/bin/sidelight --help"
    console.print(ask, style="bold", soft_wrap=True)
    look = f".venv/bin/sidelight ui --store {store}"
    console.print("or look at them in a browser with", end=" ")
    console.print(look, style="bold", soft_wrap=True)
    raise typer.Exit(code)


def run(module: str, *arguments: str, store: str) -> int:
    """Print a command and run it in a separate process."""
    program = f"python -m {module}" if module == "voice_notes" else module
    console.rule(style="dim")
    console.print(f"$ {program} {shlex.join(arguments)}\n", style="bold", soft_wrap=True)
    return subprocess.run(  # noqa: S603  # only programs of this project
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "SIDELIGHT_STORE": store},
        check=False,
    ).returncode


def latest_artifact(store: Path) -> str:
    """Return the id of the artifact that was created last."""
    with closing(sqlite3.connect(store)) as connection:
        query = "SELECT artifact_id FROM artifacts ORDER BY first_event_at DESC LIMIT 1"
        artifact: str = connection.execute(query).fetchone()[0]
        return artifact


if __name__ == "__main__":
    typer.run(demo)
