"""`sidelight export`: write events into a file that other programs read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from sidelight.cli.code.reading import import_all
from sidelight.cli.collector import without_collector
from sidelight.cli.options import (
    AsJson,
    EventFilters,
    OfArtifact,
    OfType,
    Since,
    StoreUrl,
    Until,
    filtered,
)
from sidelight.cli.output import complain, print_json, remark, stdout_kept_clean, with_progress
from sidelight.cli.spool.waiting import remark_waiting
from sidelight.cli.store.formats import FORMATS
from sidelight.cli.store.unknown import remark_unknown, require_artifact
from sidelight.record import catalogue
from sidelight.store import Page, Store, beginning_ns, declared_columns, from_ns, plural

_PAGES: Final = 25  # of a part: about 500,000 events
_FORM: Final = 2  # of the parts; a version that writes others continues none of these
_OVERLAP: Final = 30_000_000_000  # ns by which a relay may commit later than another


@filtered
def export(
    *,
    to: Annotated[
        Path,
        typer.Option(
            "--to",
            metavar="FILE",
            help=f"Write this file; its end names the format: {', '.join(FORMATS)}.",
        ),
    ],
    store: StoreUrl = None,
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--catalogue",
            metavar="MODULE",
            help="Import a module that declares event types: their attributes become typed "
            "columns. Repeatable.",
        ),
    ] = None,
    recorded_after: Annotated[
        str | None,
        typer.Option(
            "--recorded-after",
            metavar="TIME",
            help="Only events that were stored after this time, as the export before has named it.",
        ),
    ] = None,
    artifact: OfArtifact = None,
    types: OfType = None,
    filters: EventFilters,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Write events into a file, in the order in which they were stored.

    Parquet and Arrow need the extra: pip install 'sidelight[arrow]'.

    The command writes parts beside the file, and joins them at the end. Ctrl-C or a kill loses the
    part that was being written; the same command continues behind the last whole part.

    Examples:
      sidelight export --to events.parquet

      sidelight export --to failures.csv --failed --since 30d
    """
    if to.suffix not in FORMATS:
        ends = ", ".join(FORMATS)
        given = f": {to}" if to.name else ""  # an empty name is the working directory
        raise typer.BadParameter(f"--to names a file that ends in {ends}{given}")
    if not to.parent.is_dir():
        complain(f"the directory {to.parent} does not exist; make it, or name another file")
        raise typer.Exit(1)
    if to.exists():
        complain(f"{to} exists; remove it, or name another file")
        raise typer.Exit(1)
    FORMATS[to.suffix].require()
    with stdout_kept_clean():
        problems = import_all(modules or [])
    for problem in problems:
        complain(problem)
    if problems:
        raise typer.Exit(1)
    asked: dict[str, Any] = {
        "recorded_after": recorded_after,
        "artifact_id": artifact,
        "type": types or None,
        "since": since,
        "until": until,
        **filters,
    }
    begin = 0 if recorded_after is None else beginning_ns("recorded_after", recorded_after)
    declared = declared_columns(catalogue if modules else ())
    with Store(store) as opened:
        require_artifact(opened, store, artifact)
        remark_unknown(opened, types, filters)
        parts = _Parts(to, {"store": opened.url, "asked": asked, "declared": declared})
        try:
            parts.open()
            if parts.done:
                remark(f"continuing behind {plural(parts.events, 'event')}")
                asked["recorded_after"] = parts.recorded_until
            pages = with_progress(opened.pages(**asked), "exporting", opened.size(), len)
            with without_collector():
                while parts.write(islice(pages, _PAGES), declared):
                    pass
                parts.join()
        except KeyboardInterrupt:
            complain("interrupted; the same command continues")
            raise typer.Exit(1) from None
        except OSError as error:
            complain(
                f"cannot write {error.filename or to}: {error.strerror}; the same command continues"
            )
            raise typer.Exit(1) from error
    _tell(to, parts.events, max(begin, parts.recorded_until - _OVERLAP), as_json=as_json)
    remark_waiting(store)


def _tell(to: Path, events: int, until: int, *, as_json: bool) -> None:
    """Tell what the file holds, and where a later export continues (ns; 0 is the beginning)."""
    continued = from_ns(until).isoformat()
    if as_json:
        print_json([{"file": str(to), "events": events, "recorded_until": continued}])
        return
    remark(f"{plural(events, 'event')} in {to}")
    if until:
        remark(f"later events: --recorded-after {continued}; drop those whose event_id you have")


class _Parts:
    """The parts of an export, in a directory beside its file.

    A part has its final name only when it is whole. The name says how many events the part has,
    and until when they were stored.

    Args:
        file: the file to be made.
        meaning: what the export is of; a directory of another export is refused.
    """

    def __init__(self, file: Path, meaning: dict[str, Any]) -> None:
        self._file = file
        self._format = FORMATS[file.suffix]
        self._directory = file.with_name(f"{file.name}.parts")
        self._meaning = json.dumps({"parts": _FORM, **meaning}, sort_keys=True)
        self.done: list[Path] = []

    def open(self) -> None:
        """Make the directory, or find the parts that it has.

        Raises:
            OSError: the directory cannot be made.
            typer.Exit: it belongs to another export.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        meaning_file = self._directory / "export.json"
        self.done = sorted(self._directory.glob("*.part"))
        if not self.done:
            with _private(meaning_file) as file:
                file.write(self._meaning.encode())
        elif not meaning_file.exists() or meaning_file.read_text(encoding="utf-8") != self._meaning:
            complain(
                f"{self._directory} is of another export, or of another version of sidelight;"
                " remove it, or name another file"
            )
            raise typer.Exit(1)

    @property
    def events(self) -> int:
        """How many events the parts have."""
        return sum(int(path.name.split("-")[2].removesuffix(".part")) for path in self.done)

    @property
    def recorded_until(self) -> int:
        """Until when the events of the parts were stored (ns)."""
        return max((int(path.name.split("-")[1]) for path in self.done), default=0)

    def write(self, pages: Iterator[Page], declared: Any) -> bool:
        """Write a part; return False where there are no more pages.

        The first part is written in any case, because it has the columns.
        """
        first = next(pages, None)
        if first is None and self.done:
            return False
        temporary = self._directory / "unfinished"
        events, until = 0, 0

        def counted() -> Iterator[Page]:
            nonlocal events, until
            for page in chain([first] if first else [], pages):
                events, until = events + len(page), page.recorded_until
                yield page

        with _private(temporary) as file:
            self._format.write(file, counted(), declared)
        path = self._directory / f"{len(self.done):06}-{until}-{events}.part"
        temporary.rename(path)
        self.done.append(path)
        return first is not None

    def join(self) -> None:
        """Make the file of the parts, and remove them."""
        temporary = self._directory / "unfinished"
        with _private(temporary) as file:
            self._format.join(file, self._opened())
        temporary.rename(self._file)
        shutil.rmtree(self._directory)

    def _opened(self) -> Iterator[IO[bytes]]:
        for path in with_progress(self.done, "joining", len(self.done)):
            with path.open("rb") as part:
                yield part


def _private(path: Path) -> IO[bytes]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return os.fdopen(fd, "wb")
