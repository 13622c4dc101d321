"""Source files: read with their own line ends, and replaced in one step or not at all."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import shutil
import tempfile
import tokenize
import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sidelight.exceptions import MapError


class Edit(msgspec.Struct, frozen=True):
    """A change of one file.

    Attributes:
        path: the file; the target of a link.
        data: the bytes before the change.
        text: the text after the change.
        encoding: the encoding of both.
        count: the decorators that are added or removed.
    """

    path: Path
    data: bytes
    text: str
    encoding: str
    count: int

    @property
    def before(self) -> str:
        """The text before the change."""
        return self.data.decode(self.encoding)

    def diff(self, name: str) -> str:
        """Return the change as ``patch`` reads it; ``name`` is the file's name in it."""
        return "".join(
            difflib.unified_diff(
                self.before.splitlines(keepends=True),
                self.text.splitlines(keepends=True),
                f"a/{name}",
                f"b/{name}",
            )
        )

    def _check(self) -> None:
        if self.path.read_bytes() != self.data:
            raise MapError(
                place=self.path,
                problem="the file has changed since it was read",
                remedy="try again",
            )

    def write(self) -> None:
        """Replace the file by one rename.

        Raises:
            MapError: the file has changed since it was read, or cannot be written.
        """
        temporary = None
        try:
            self._check()
            with tempfile.NamedTemporaryFile(
                dir=self.path.parent, prefix=f".{self.path.name}.", delete=False
            ) as file:
                temporary = file.name
                file.write(self.text.encode(self.encoding))
                file.flush()
                os.fsync(file.fileno())
            shutil.copymode(self.path, temporary)
            Path(temporary).replace(self.path)
        except BaseException as error:
            if temporary is not None:
                with contextlib.suppress(FileNotFoundError):
                    Path(temporary).unlink()
            if not isinstance(error, OSError):
                raise
            problem = error.strerror or str(error)
            raise MapError(
                place=self.path, problem=problem, remedy="make the file writable"
            ) from error


def line_length(path: Path, default: int) -> int:
    """Return the line length that the settings of ruff or black give for a file, in characters."""
    for folder in path.parents:
        for name in ("ruff.toml", "pyproject.toml"):
            try:
                settings = tomllib.loads((folder / name).read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                continue
            tools = settings.get("tool", {})
            for each in (settings, tools.get("ruff", {}), tools.get("black", {})):
                if isinstance(width := each.get("line-length"), int):
                    return width
    return default


def read_source(path: Path) -> tuple[bytes, str, str]:
    """Read the bytes of a file, its text with unchanged line ends, and its encoding.

    Raises:
        OSError, SyntaxError, UnicodeDecodeError: the file cannot be read.
    """
    data = path.read_bytes()
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return data, data.decode(encoding), encoding


def lines_of(text: str) -> list[str]:
    """Return the lines as Python counts them.

    `str.splitlines` counts more characters as line ends.
    """
    return list(io.StringIO(text, newline=""))


def newline_of(lines: Sequence[str]) -> str:
    """Return the line end of a file: that of its first line."""
    return "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
