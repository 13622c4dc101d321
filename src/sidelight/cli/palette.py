"""Colours of answers, each readable on dark and on light backgrounds.

They come from the fixed part of the 256 colours, because the first 16 are another colour in each
terminal: its yellow is often unreadable on white, its blue on black. Each contrasts with white and
with black by 3.9 : 1 or more. Terminals of 16 colours show the nearest one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

RED: Final = "color(196)"
GREEN: Final = "color(28)"
BLUE: Final = "color(31)"
CYAN: Final = "color(30)"
AMBER: Final = "color(130)"
MAGENTA: Final = "color(133)"
GREY: Final = "color(243)"
"""Instead of "dim", which many terminals make too faint."""

HELP: Final[Mapping[str, object]] = {
    # typer would print colours wherever GITHUB_ACTIONS is set, into files and pipes too.
    "FORCE_TERMINAL": True if os.environ.get("FORCE_COLOR") else None,
    "STYLE_OPTION": f"bold {CYAN}",
    "STYLE_SWITCH": f"bold {GREEN}",
    "STYLE_TYPES": AMBER,
    "STYLE_TYPES_SEPARATOR": GREY,
    "STYLE_USAGE": AMBER,
    "STYLE_HELPTEXT": "",
    "STYLE_OPTION_DEFAULT": GREY,
    "STYLE_OPTION_ENVVAR": GREY,
    "STYLE_REQUIRED_SHORT": RED,
    "STYLE_REQUIRED_LONG": RED,
    "STYLE_OPTIONS_PANEL_BORDER": GREY,
    "STYLE_ERRORS_PANEL_BORDER": RED,
    "STYLE_ERRORS_SUGGESTION": GREY,
    "STYLE_ABORTED": RED,
    "RICH_HELP": "Try '{command_path} {help_option}' for help.",
    "STYLE_COMMANDS_PANEL_BORDER": GREY,
    "STYLE_COMMANDS_TABLE_FIRST_COLUMN": f"bold {CYAN}",
}
"""By the names that `typer.rich_utils` has for what decides the colours of `--help`."""
