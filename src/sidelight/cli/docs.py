"""`sidelight docs`: the pages of the documentation that come with the installed package."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markdown import Markdown
from rich.text import Text
from rich.theme import Theme

from sidelight.cli.output import complain, console, remark
from sidelight.cli.palette import AMBER, BLUE, CYAN, GREY
from sidelight.cli.tables import print_table
from sidelight.record import alike

_PACKAGE: Final = Path(__file__).parents[1]
_PLACES: Final = (_PACKAGE / "docs", _PACKAGE.parents[1] / "docs")
"""In an installed package, and in a clone."""
_LINK: Final = re.compile(r"(?<!!)\[([^\]]+)\]\((?!\w+:)(?:[^)#]*?([\w-]+)\.md)?(?:#[^)]*)?\)")
_IMAGE: Final = re.compile(r"!\[[^\]]*\]\([^)]*\)\n*")
_COMMENT: Final = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_LANGUAGE: Final = re.compile(r"(?<=^```)\w+$", re.MULTILINE)
"""Of a block of code: without it, rich chooses no colours, which suit no light terminal."""
_LOOKS: Final = {
    "markdown.code": CYAN,
    "markdown.code_block": "",
    "markdown.block_quote": GREY,
    "markdown.h1": "bold",
    "markdown.h2": "bold",
    "markdown.h3": "bold",
    "markdown.item.bullet": AMBER,
    "markdown.item.number": AMBER,
    "markdown.link": BLUE,
    "markdown.link_url": f"underline {BLUE}",
    "markdown.table.border": GREY,
    "markdown.table.header": "bold",
}


def docs(
    page: Annotated[
        str | None, typer.Argument(metavar="[PAGE]", help="The page's name. Default: list all.")
    ] = None,
) -> None:
    """Show a page of the documentation, as of the installed version.

    In a pipe the page is Markdown.

    Examples:
      sidelight docs

      sidelight docs map

      sidelight docs losses | less
    """
    pages = _pages()
    if not pages:
        complain("this installation has no pages of documentation; install the wheel of sidelight")
        raise typer.Exit(1)
    if page is None:
        names = [*pages]
        print_table(
            {
                "page": [Text(name, style="bold") for name in names],
                "": [Text(_title(pages[name])) for name in names],
            }
        )
        remark("`sidelight docs PAGE` shows one")
        return
    name = page.partition("#")[0].rpartition("/")[2].removesuffix(".md")
    if name not in pages:
        longer = [each for each in pages if name and name in each.split("-")]
        close = " or ".join(longer) or alike(name, pages)
        hint = f"did you mean {close}?" if close else "`sidelight docs` lists them"
        complain(f"there is no page {page}; {hint}")
        raise typer.Exit(1)
    text = pages[name].read_text("utf-8")
    if sys.stdout.isatty():
        out = console()
        out.push_theme(Theme(_LOOKS))
        out.print(Markdown(_readable(text), code_theme="ansi_dark", hyperlinks=False))
    else:
        sys.stdout.write(_COMMENT.sub("", text))


def _pages() -> Mapping[str, Path]:
    """Return the pages by name, in the order in which a person reads them."""
    place = next((each for each in _PLACES if (each / "tutorial.md").exists()), None)
    if place is None:
        return {}
    found = [
        place / "tutorial.md",
        *(
            path
            for kind in ("how-to", "explanation", "reference")
            for path in sorted((place / kind).glob("*.md"))
        ),
    ]
    return {path.stem: path for path in found}


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()


def _readable(text: str) -> str:
    """Leave out what a terminal does not show, and name the page behind each link."""

    def named(link: re.Match[str]) -> str:
        words, page = link.groups()
        return words if page is None or page in words else f"{words} (→ {page})"

    for each in (_IMAGE, _COMMENT, _LANGUAGE):
        text = each.sub("", text)
    return _LINK.sub(named, text)
