"""Files of source: read as they are, and written as a whole or not at all."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import shutil
import tempfile
import tokenize
import tomllib
from pathlib import Path

import msgspec

from sidelight.exceptions import MapError


class Edit(msgspec.Struct, frozen=True):
    """What becomes of a file.

    Attributes:
        path: the file; where it is a link, what that leads to.
        data: its bytes as they were.
        text: what it is to be.
        encoding: of both.
        count: the decorators that come or go.
    """

    path: Path
    data: bytes
    text: str
    encoding: str
    count: int

    @property
    def before(self) -> str:
        """Its text as it was."""
        return self.data.decode(self.encoding)

    def diff(self, name: str) -> str:
        """The difference, as ``patch`` reads it."""
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
                place=self.path, problem="somebody changed it meanwhile", remedy="try again"
            )

    def write(self) -> None:
        """Put the new text in the place of the old one, in one step.

        Raises:
            MapError: the file is another than it was, or cannot be written.
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
            raise MapError(place=self.path, problem=problem, remedy="see that it can be") from error


def width_of(path: Path, otherwise: int) -> int:
    """How long a line may be, by the settings of ruff or black that hold for a file."""
    for folder in path.parents:
        for name in ("ruff.toml", "pyproject.toml"):
            try:
                settings = tomllib.loads((folder / name).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            tools = settings.get("tool", {})
            for each in (settings, tools.get("ruff", {}), tools.get("black", {})):
                if isinstance(width := each.get("line-length"), int):
                    return width
    return otherwise


def source(path: Path) -> tuple[bytes, str, str]:
    """A file's bytes, its text with the ends of its lines, and its encoding.

    Raises:
        OSError, SyntaxError, UnicodeDecodeError: it cannot be read.
    """
    data = path.read_bytes()
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return data, data.decode(encoding), encoding
