"""Draw the rooms of the house as Mermaid, from the contract in pyproject.toml.

``python -m tests.docs.house`` (or ``make house``) puts the picture into the page for contributors.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "explanation" / "the-house.md"
_BEGIN, _END = "<!-- rooms -->\n", "<!-- /rooms -->"


def contracts() -> list[dict[str, Any]]:
    """The contracts of import-linter."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return found


def floors() -> list[list[str]]:
    """The names on each floor of the contract, the top floor first."""
    (layers,) = (each["layers"] for each in contracts() if each["type"] == "layers")
    return [[name.strip() for name in layer.split("|")] for layer in layers]


def is_room(name: str) -> bool:
    """Whether a name of the contract is a package; the others are single files."""
    return (ROOT / "src" / "sidelight" / name).is_dir()


def picture() -> str:
    """The flowchart: a box for each floor, a node for each room or file, arrows down."""
    levels = floors()
    numbers = range(len(levels), 0, -1)
    lines = ["```mermaid", "flowchart TB"]
    for number, names in zip(numbers, levels, strict=True):
        lines.append(f'  subgraph floor{number}["floor {number}"]')
        for name in names:
            shape = f'["{name}/"]' if is_room(name) else f'("{name}.py")'
            lines.append(f"    n_{name.strip('_')}{shape}")
        lines.append("  end")
    lines += [f"  floor{number} --> floor{number - 1}" for number in numbers if number > 1]
    return "\n".join([*lines, "```", ""])


def drawn(text: str) -> str:
    """A page with the picture in its place."""
    before, _, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert end, f"the page has no {_BEGIN.strip()} … {_END}"
    return f"{before}{_BEGIN}{picture()}{end}{after}"


def main(page: Path = PAGE) -> None:
    """Draw the picture into a page."""
    page.write_text(drawn(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
