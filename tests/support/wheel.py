"""Build the distributions, and try the wheel in an empty environment: ``make wheel``.

What is tried is what the README tells a person to type: its first example, and its command.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.support.interpreters import ROOT


def _first_example() -> tuple[str, str]:
    """The first Python of the README, and the arguments of the command that follows it."""
    text = (ROOT / "README.md").read_text("utf-8")
    example = re.search(r"```python\n(.*?)```\n\n```console\n\$ sidelight (.*?)\n", text, re.DOTALL)
    assert example is not None, "the README has no example with a command of sidelight after it"
    return example[1], example[2]


def main() -> None:
    """Build, check the metadata, install, and run."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        dist, python = home / "dist", home / "venv" / "bin" / "python"

        def run(*command: object, within: Path = home) -> str:
            told = subprocess.run(
                [str(each) for each in command],
                cwd=within,
                env={"PATH": os.environ["PATH"], "HOME": directory},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            return told.stdout

        run(sys.executable, "-m", "build", "--outdir", dist, within=ROOT)
        run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir())
        venv.create(home / "venv", with_pip=True)
        (wheel,) = dist.glob("*.whl")
        run(python, "-m", "pip", "install", "--quiet", wheel)
        code, arguments = _first_example()
        (home / "example.py").write_text(code, "utf-8")
        run(python, "-W", "error", "example.py")
        told = run(python, "-m", "sidelight", *arguments.split())
        assert "invoice_sent" in told, told
        assert run(home / "venv" / "bin" / "sidelight", *arguments.split()) == told
        assert " counts " in run(python, "-m", "sidelight", "--help")
        run(python, "-m", "sidelight", "export", "--to", "e.csv", "--store", arguments.split()[-1])
        page = run(python, "-m", "sidelight", "docs", "map")
        assert page == (ROOT / "docs" / "reference" / "map.md").read_text("utf-8")
        print(f"{wheel.name} works in an empty environment:\n{told}")


if __name__ == "__main__":
    main()
