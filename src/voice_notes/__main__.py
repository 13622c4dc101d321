"""`python -m voice_notes note.wav`."""

import sys


def main() -> None:
    """Run the command line, or print how to install a missing library."""
    try:
        from voice_notes.cli import app  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        sys.exit(f"{missing.name} is not installed; in a checkout: pip install -e '.[voice]'")
    app(prog_name="python -m voice_notes")


if __name__ == "__main__":
    main()
